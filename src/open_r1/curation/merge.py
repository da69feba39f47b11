"""`open-r1 data merge`: merges the parts that a job array generated into one dataset.

    open-r1 generate ... --shard 0/8 --output data/parts      (and 1/8 to 7/8, in other jobs)
    open-r1 data merge data/parts --output data/traces

All parts must be finished and have the same settings. Files are hard-linked if possible, else copied.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console

from open_r1.curation.rows import OutputOptions, check_output
from open_r1.errors import UserError
from open_r1.files import link_or_copy, write_json
from open_r1.generation.store import shard_files
from open_r1.generation.summary import finish, summarise, summary_table
from open_r1.options import parse_options
from open_r1.options.annotations import Positional


@dataclass(kw_only=True)
class MergeOptions(OutputOptions):
    """Parts."""

    folder: Annotated[Path, Positional("DIR")]
    """Output folder of `open-r1 generate --shard I/N`."""


def main(argv: list[str] | None = None) -> None:
    """Merges. Raises UserError."""
    (args,) = parse_options(argv, MergeOptions, prog="open-r1 data merge", description=__doc__)
    parts = finished_parts(args.folder)
    console = Console()
    if args.dry_run:
        rows = sum(summarise(part)["rows"] for part in parts)
        console.print(f"{len(parts)} parts, {rows:,} rows. Nothing was written (--dry-run).", highlight=False)
        return
    check_output(args.output)
    temporary = args.output.with_name(args.output.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "data").mkdir(parents=True)
    (temporary / "run").mkdir()
    for number, path in enumerate(path for part in parts for path in shard_files(part)):
        link_or_copy(path, temporary / "data" / f"train-{number:05d}.parquet")
    shutil.copy(parts[0] / "run" / "environment.json", temporary / "run")
    write_json(temporary / "run" / "settings.json", _settings(parts[0]) | {"shard": "0/1"})
    figures = finish(temporary)
    if args.output.is_dir():  # empty
        args.output.rmdir()
    temporary.rename(args.output)
    console.print(summary_table(figures))
    console.print(f"The rows of {len(parts)} parts are in {args.output}.", soft_wrap=True, highlight=False)


def finished_parts(folder: Path) -> list[Path]:
    """The parts in order. Raises `UserError` if one is missing, unfinished, or has other settings."""
    parts = sorted(folder.glob("shard-*-of-*"))
    if not parts:
        raise UserError(f"{folder} has no shard-I-of-N folders: give the --output of `open-r1 generate --shard I/N`.")
    count = int(parts[0].name.rpartition("-")[2])
    expected = [folder / f"shard-{i:05d}-of-{count:05d}" for i in range(count)]
    for part in expected:
        if not part.is_dir():
            raise UserError(f"{part.name} is missing: run `open-r1 generate` for this shard.")
        if not (part / "run" / "summary.json").exists():
            raise UserError(f"{part.name} is not finished: run the same `open-r1 generate` command again.")
    if extra := set(parts) - set(expected):
        raise UserError(
            f"{folder} also has {min(extra).name}, which belongs to another number of shards: move it elsewhere."
        )
    first = _settings(parts[0])
    for part in parts[1:]:
        settings = _settings(part)
        if changed := [name for name in first if settings.get(name) != first[name]]:
            raise UserError(
                f"{part.name} has another {changed[0]} than the first part ({settings.get(changed[0])!r}, not "
                f"{first[changed[0]]!r}): generate it again."
            )
    return expected


def _settings(part: Path) -> dict:
    settings = json.loads((part / "run" / "settings.json").read_text(encoding="utf-8"))
    settings.pop("shard", None)
    return settings
