"""Hooks of `mkdocs.yml`: pages that are made, not kept, and links that leave `docs/`.

`index.md` is the README, `changelog.md` the changelog, and `reference.md` every option of every command, from the
docstrings that `--help` shows. A link to a file outside `docs/` becomes the file's name, because the site has no such
page.
"""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
COMMANDS = ("sft", "grpo", "generate", "evaluate", "launch", "vllm-serve", "demo", "watch", "report", "compare", "ask")
COMMANDS += ("chat", "doctor", *(f"data {tool}" for tool in ("verify", "pass-rate", "decontaminate", "dedup", "mix")))
COMMANDS += ("data stats", "data merge", "data push")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
PICTURE = re.compile(r'src="docs/')


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Adds the pages that are made."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = PICTURE.sub('src="', LINK.sub(_from_the_root, readme))
    pages = {
        "index.md": readme,
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "reference.md": reference(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files outside `docs/` become names."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def shown(match: re.Match[str]) -> str:
        text, target = match.groups()
        file = target.partition("#")[0]
        if not file or re.match(r"[a-z]+:", target) or (folder / file).resolve().is_relative_to(ROOT / "docs"):
            return match.group()
        return text if text.startswith("`") else f"{text} (`{(folder / file).resolve().relative_to(ROOT)}`)"

    return LINK.sub(shown, markdown)


def _from_the_root(match: re.Match[str]) -> str:
    text, target = match.groups()
    if target.startswith("docs/"):
        return f"[{text}]({target.removeprefix('docs/')})"
    if target == "CHANGELOG.md":
        return f"[{text}](changelog.md)"
    return match.group() if re.match(r"[a-z]+:|#", target) else f"{text} (`{target}`)"


def reference() -> str:
    """The help of every command, as a page."""
    parts = ["# Every option", "What `open-r1 COMMAND --help` shows, made from the docstrings."]
    for command in COMMANDS:
        parts += [f"## open-r1 {command}", f"```text\n{_help(command)}\n```"]
    return "\n\n".join(parts) + "\n"


def _help(command: str) -> str:
    from open_r1.cli import main

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    return shown.getvalue().strip()
