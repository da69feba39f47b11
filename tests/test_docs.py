"""What the documents say is there: links, anchors, commands and their options; and the two READMEs agree."""

import ast
import contextlib
import doctest
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from open_r1.cli import COMMANDS, main
from open_r1.configs import GRPOConfig, GRPOScriptArguments, ModelConfig
from open_r1.options import parse_options
from open_r1.rewards.registry import REGISTRY

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "recipes/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "AGENTS.md"
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"|!\[[^\]]*\]\(([^)\s]+)\)")
GROUPS = {"data": ("verify", "pass-rate", "decontaminate", "dedup", "mix", "stats", "merge", "push")}


def name(path):
    return str(path.relative_to(ROOT))


@cache
def anchors(page):
    """As GitHub makes them: lower case, without punctuation, blanks as dashes."""
    without_code = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ +(.*)$", without_code, flags=re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", title) for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for groups in LINK.findall(text):
        target = next(filter(None, groups))
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(there), f"{target}: there is no such title"


def blocks(page):
    """Lines of the bash blocks, continued lines joined, comments left out."""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "fence" and token.info.split()[:1] == ["bash"]:
            for line in token.content.replace("\\\n", " ").splitlines():
                yield re.sub(r"(^|\s)#.*$", "", line).strip()


def commands(page):
    """`(command, options)` of every `open-r1` in the page's blocks, and of every `python src/open_r1/...`."""
    for line in blocks(page):
        line = re.sub(r"src/open_r1/(sft|grpo|generate|evaluate)\.py", r"open-r1 \1", line)
        for part in re.split(r"&&|\||;", line):
            words = _words(part)
            if "open-r1" not in words:
                continue
            words = words[words.index("open-r1") + 1 :]
            if words and words[0] in COMMANDS:
                options = [w.partition("=")[0] for w in words if re.match(r"--[A-Za-z]", w)]
                yield " ".join(words[: 2 if words[0] in GROUPS else 1]), options


def _words(text):
    try:
        return shlex.split(text)
    except ValueError:
        return []


@cache
def known_options(command):
    """The options that the command's help lists, with dashes."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    return {option.replace("_", "-") for option in re.findall(r"--[A-Za-z][\w-]*", shown.getvalue())}


def all_options(command):
    found = known_options(command)
    if command == "launch":  # what it does not know goes to the entry script
        found = found | known_options("sft") | known_options("grpo")
    if command == "data pass-rate":
        found = found | known_options("generate")
    return found | {option.replace("--", "--no-", 1) for option in found} | {"--help", "--version"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_and_option_is_there(page):
    for command, options in commands(page):
        parts = command.split()
        assert parts[0] not in GROUPS or (parts[1:] and parts[1] in GROUPS[parts[0]]), f"open-r1 {command}"
        if parts[0] == "vllm-serve":  # what it does not know goes to vLLM
            continue
        for option in options:
            assert option.replace("_", "-") in all_options(command), f"open-r1 {command} has no {option}"


@pytest.mark.parametrize("page", [page for page in PAGES if "\n>>> " in page.read_text(encoding="utf-8")], ids=name)
def test_examples_with_a_python_prompt_print_what_the_page_says(page):
    fences = (token for token in MarkdownIt().parse(page.read_text(encoding="utf-8")) if token.type == "fence")
    session = "\n".join(fence.content for fence in fences if fence.content.startswith(">>> "))
    shown = io.StringIO()
    test = doctest.DocTestParser().get_doctest(session, {}, page.name, str(page), 0)
    failed, tried = doctest.DocTestRunner().run(test, out=shown.write)
    assert tried
    assert not failed, shown.getvalue()


def test_the_readme_is_short_and_the_chinese_one_has_its_figures():
    english, chinese = ((ROOT / file).read_text(encoding="utf-8") for file in ("README.md", "README_zh.md"))
    assert len(english.splitlines()) <= 150
    assert len(chinese.splitlines()) <= 150
    figures = [set(re.findall(r"\d+(?:\.\d+)?%|\b\d+\.\d+\b", text)) for text in (english, chinese)]
    assert figures[0] == figures[1]
    assert english.count("\n|") == chinese.count("\n|"), "a table has more rows in one language"
    pictures = [re.findall(r'src="([^"]+)"', text) for text in (english, chinese)]
    assert pictures[0] == pictures[1]
    links = [{link for link, _, _ in LINK.findall(text) if link.startswith("docs/")} for text in (english, chinese)]
    plain = [{link.replace(".zh.md", ".md") for link in found} for found in links]
    assert plain[0] <= plain[1]


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_program():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| Message .*\n(?:\|.*\n)+", text, flags=re.MULTILINE)
    quoted = [message for table in tables for message in re.findall(r"^\| `([^`]+)`", table, flags=re.MULTILINE)]
    texts = set()
    for path in (ROOT / "src" / "open_r1").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                texts.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(re.sub(r"%s|\{[^{}]*\}", "…", node.value))
    assert len(quoted) > 8
    for message in quoted:
        assert any(message in text for text in texts), message


def test_the_settings_of_papers_are_options_and_values_that_exist(tmp_path):
    """Each row of the paper index is a recipe, as far as it goes."""
    index = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8").partition("## Which settings give")[2]
    rows = [re.findall(r"`(\w+: [^`]+)`", line) for line in index.splitlines() if line.startswith("| ")]
    settings = [yaml.safe_load("\n".join(row)) for row in rows if row]
    assert len(settings) > 6
    for row in settings:
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(row | {"model_name_or_path": "m", "output_dir": "o"}))
        _, script, args = parse_options(
            ["--config", str(tmp_path / "recipe.yaml")],
            ModelConfig,
            GRPOScriptArguments,
            GRPOConfig,
            prog="",
            description="",
        )
        for name, value in row.items():
            found = getattr(args if hasattr(args, name) else script, name)
            assert found == (float(value) if isinstance(found, float) else value)
        for reward in script.reward_funcs:
            assert reward in REGISTRY


def test_the_image_copies_what_is_there_and_all_that_the_wheel_needs():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, flags=re.MULTILINE) for word in line.split()]
    assert all((ROOT / name).exists() for name in copied)
    linked = [path.resolve() for path in (ROOT / "src").rglob("*") if path.is_symlink()]
    assert {str(path.relative_to(ROOT)).split("/")[0] for path in linked} <= set(copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert not set(ignored) & set(copied)
