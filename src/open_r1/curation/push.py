"""`open-r1 data push`: uploads a dataset folder to the hub.

    open-r1 data push data/verified me/my-traces --private
    open-r1 data push data/verified me/my-traces --dry-run

It uploads the shards, the card and the settings, but not the journal of an unfinished run.
"""

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console

from open_r1.errors import UserError
from open_r1.options import parse_options
from open_r1.options.annotations import Positional
from open_r1.report.hub import NOT_PUSHED, create_dataset_repo, push_dataset


@dataclass(kw_only=True)
class PushOptions:
    """Dataset and repository."""

    folder: Annotated[Path, Positional("DIR")]
    """Output folder of `open-r1 generate` or of another tool."""
    repo: Annotated[str, Positional("ID")]
    """Repository on the hub, such as me/my-traces."""
    private: bool = False
    """Make the repository private if it is new."""
    dry_run: bool = False
    """List what would be uploaded."""


def main(argv: list[str] | None = None) -> None:
    """Uploads. Raises UserError."""
    (args,) = parse_options(argv, PushOptions, prog="open-r1 data push", description=__doc__)
    files = uploaded(args.folder)
    console = Console()
    for path in files:
        console.print(f"{path.stat().st_size / 1e6:>9.2f} MB  {path.relative_to(args.folder)}", highlight=False)
    if args.dry_run:
        console.print("Nothing was uploaded (--dry-run).")
        return
    create_dataset_repo(args.repo, args.private)
    console.print(push_dataset(args.folder, args.repo), soft_wrap=True, highlight=False)


def uploaded(folder: Path) -> list[Path]:
    """The files of a dataset folder. Raises `UserError` if it is none, or not finished."""
    if not list(folder.glob("data/*.parquet")):
        raise UserError(
            f"{folder} has no data/*.parquet: give an output folder of `open-r1 generate` or `open-r1 data`."
        )
    if (folder / "run" / "journal.jsonl").exists():
        raise UserError(f"{folder} is not finished: first run the same `open-r1 generate` command again.")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        path
        for path in files
        if not any(fnmatch.fnmatch(str(path.relative_to(folder)), pattern) for pattern in NOT_PUSHED)
    ]
