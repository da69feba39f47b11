"""Hooks of `mkdocs.yml`: pages that come from elsewhere, and links that leave `docs/`.

Pages of the repository's root are copied (`COPIED`), and `reference.md` lists every option of every command as `--help`
does, from the docstrings. Links between such pages lead to the site's pages; a link to any other file becomes its name.
"""

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
COPIED = {
    "index.md": "README.md",
    "index.zh.md": "README_zh.md",
    "recipes.md": "recipes/README.md",
    "examples/gsm8k.md": "examples/gsm8k/README.md",
    "examples/zero.md": "examples/zero/README.md",
    "examples/what-matters.md": "examples/what_matters/README.md",
    "examples/programs.md": "examples/programs/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages of the site, and the files that they are copies of."""
COMMANDS = ("sft", "grpo", "generate", "evaluate", "launch", "vllm-serve", "demo", "watch", "report", "compare", "ask")
COMMANDS += ("chat", "doctor", *(f"data {tool}" for tool in ("verify", "pass-rate", "decontaminate", "dedup", "mix")))
COMMANDS += ("data stats", "data merge", "data push")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<link>[^)\s]+)\)|(?<=src=\")(?P<picture>[^\"]+)")
OPTION = re.compile(r"  (?P<names>\S.*?)  \((?P<kind>.*)\)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Adds the pages that come from elsewhere."""
    pages = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in COPIED.items()}
    for name, text in (pages | {"reference.md": reference()}).items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links between files of the repository into links between pages of the site."""
    uri = page.file.src_uri
    source = ROOT / COPIED.get(uri, f"docs/{uri}")
    return LINK.sub(lambda match: _on_the_site(match, source, uri), markdown)


def _on_the_site(match: re.Match[str], source: Path, uri: str) -> str:
    text, target = match["text"], match["link"] or match["picture"]
    file, mark, anchor = target.partition("#")
    if not file or re.match(r"[a-z]+:", target):
        return match.group()
    name = str((source.parent / file).resolve().relative_to(ROOT))
    pages = {copied: page for page, copied in COPIED.items()}
    there = pages.get(name) or pages.get(f"{name}/README.md") or (name[5:] if name.startswith("docs/") else None)
    if there is None:
        return text if text.startswith("`") else f"{text} (`{name}`)"
    link = os.path.relpath(there, os.path.dirname(uri) or ".") + mark + anchor  # noqa: PTH120
    return link if match["picture"] else f"[{text}]({link})"


def reference() -> str:
    """The options of every command, as tables."""
    parts = ["# Every option", "What `open-r1 COMMAND --help` shows, from the same docstrings."]
    for command in COMMANDS:
        parts += [f"## open-r1 {command}", *_tables(_help(command))]
    return "\n\n".join(parts) + "\n"


def _tables(text: str) -> list[str]:
    """The help of a command as Markdown: what it does, and a table for each group of options."""
    blocks = re.split(r"\n\n+", text)
    parts = [f"```text\n{blocks[0].removeprefix('usage: ')}\n```"]
    for block in blocks[1:]:
        title, *entries = block.splitlines()
        if entries and OPTION.fullmatch(entries[0]):
            parts += [f"**{title.removesuffix(':')}**", _table(entries)]
        elif block.startswith("    "):
            parts.append(f"```bash\n{re.sub('^    ', '', block, flags=re.MULTILINE)}\n```")
        elif not block.startswith(("  ", "Example:")):  # the index of the groups, and a command without a recipe
            parts.append(block)
    return parts


def _table(entries: list[str]) -> str:
    rows: list[list[str]] = []
    for line in entries:
        if option := OPTION.fullmatch(line):
            names = ", ".join(f'<code class="option">{name}</code>' for name in option["names"].split(", "))
            rows.append([names, option["kind"], ""])
        else:
            rows[-1][2] += f" {line.strip()}"
    texts = [[names, *(re.sub(r"(?<!`)<", "&lt;", text.strip()) for text in others)] for names, *others in rows]
    cells = [[text.replace("|", "\\|") for text in row] for row in texts]
    return "\n".join(["| Option | Value | Meaning |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in cells)])


def _help(command: str) -> str:
    from open_r1.cli import main

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    return shown.getvalue().strip()
