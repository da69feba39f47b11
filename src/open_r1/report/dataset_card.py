"""The card of every dataset: what it is, and how it was made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from open_r1.files import write_text
from open_r1.report.card import code, is_hub_id, short, shown_command, table
from open_r1.report.environment import command_line, git_commit, package_versions


def write_dataset_card(
    folder: Path,
    *,
    what: str,
    sources: Sequence[str],
    settings: Mapping[str, Any],
    figures: Mapping[str, Any] | None,
    columns: Mapping[str, str],
) -> None:
    """Writes `folder/README.md`.

    `what` is a sentence; `figures` is None while rows are still missing; `columns` says what the new columns mean.
    The header does not name data files, because `datasets` finds `data/<split>-*.parquet` on its own. If they were
    named, it would treat folders with the same name as the same dataset, and show the old rows of one that has grown.
    """
    from huggingface_hub import DatasetCardData

    header = DatasetCardData(
        tags=["open-r1", "reasoning"],
        source_datasets=[name for name in sources if is_hub_id(name)] or None,
    )
    parts = [
        f"---\n{header.to_yaml()}\n---",
        f"# {folder.resolve().name.removesuffix('.tmp')}",
        what + f" From {', '.join(code(short(name)) for name in sources)}. Made with Open R1.",
        f"```bash\n{shown_command(command_line())}\n```",
    ]
    if figures is None:
        parts.append("**Not finished yet**: run the same command to continue.")
    else:
        parts += ["## Figures", table("figure", figures)]
    parts += ["## How it was made", table("setting", settings)]
    if columns:
        meanings = [f"| {code(name)} | {meaning} |" for name, meaning in columns.items()]
        parts += ["## Columns", "\n".join(["| column | meaning |", "|---|---|", *meanings])]
    versions = {**package_versions(), "commit": git_commit() or "no checkout"}
    parts += ["## Versions", table("package", versions)]
    write_text(folder / "README.md", "\n\n".join(parts) + "\n")
