"""Shared by the dataset tools: reads rows, reports dropped rows, and writes the others."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from open_r1.data.conversations import is_conversation
from open_r1.data.load import load_split
from open_r1.data.messages import check_messages
from open_r1.data.paths import column_of, values_at
from open_r1.errors import UserError
from open_r1.files import write_json
from open_r1.options.annotations import Alias, Positional
from open_r1.report.dataset_card import write_dataset_card

logger = logging.getLogger(__name__)

READ = 512
"""Rows that are read at once."""
SHARD_BYTES = 256 << 20
EXAMPLES = 5


@dataclass(kw_only=True)
class SourceOptions:
    """Rows."""

    dataset: Annotated[str, Positional("DATASET")]
    """Hub id, local folder or file."""
    dataset_config: Annotated[str | None, Alias("config")] = None
    """Configuration of the hub dataset."""
    split: str = "train"
    """Split of the dataset; slices such as train[:100] work."""


@dataclass(kw_only=True)
class OutputOptions:
    """Output."""

    output: Path | None = None
    """Output folder."""
    dry_run: bool = False
    """Only report which rows would be kept and dropped; write nothing."""


@dataclass(kw_only=True)
class RowOptions(OutputOptions, SourceOptions):
    """Input and output of a tool."""


def load(args: RowOptions) -> Dataset:
    """The rows that the options select. Raises `UserError`, also if the output cannot be written."""
    if not args.dry_run:
        check_output(args.output)
    warn_unfinished(args.dataset)
    return load_split(args.dataset, config=args.dataset_config, split=args.split)


def warn_unfinished(dataset: str) -> None:
    """Warns if `dataset` is an unfinished run of `open-r1 generate`."""
    run = Path(dataset).expanduser() / "run"
    if (run / "settings.json").is_file() and not (run / "summary.json").is_file():
        logger.warning("%s is not finished: only its finished shards are read.", dataset)


def check_output(folder: Path | None) -> None:
    """Raises `UserError` unless `folder` is given and new."""
    if folder is None:
        raise UserError("output is missing: give --output DIR, or --dry-run to write nothing.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"output is {folder}, which already exists: give a new folder, or delete this one.")


@dataclass(kw_only=True)
class ProblemColumn:
    """Columns (a field in one: COLUMN.FIELD)."""

    prompt_column: Annotated[str | None, Alias("column", "dataset_prompt_column")] = None
    """Column with the problem. Default: the first of `problem`, `question`, `instruction`, `prompt`, `messages` and
    `conversations`."""


def as_text(value: Any) -> str:
    """A problem as text. For a conversation, it is the first user message."""
    if is_conversation(value):
        messages = json.loads(value) if isinstance(value, str) else value
        said = [m for m in messages if (m.get("role") or m.get("from")) in ("user", "human")]
        return str(check_messages(said[:1], "the problem")[0]["content"]) if said else ""
    return "" if value is None else str(value)


def problems_in(dataset: Dataset, path: str) -> Iterator[list[tuple[int, str]]]:
    """Every row's index and problem, as text, in batches."""
    problems = dataset.select_columns([column_of(dataset, path)])
    for start in range(0, len(dataset), READ):
        values = values_at(problems[start : start + READ], path)
        yield [(row, as_text(value)) for row, value in enumerate(values, start)]


def take(dataset: Dataset, indices: Sequence[int]) -> Iterator[pa.Table]:
    """All columns of the rows `indices`, in that order, `READ` at a time."""
    for start in range(0, len(indices), READ):
        yield dataset.with_format("arrow")[list(indices[start : start + READ])].replace_schema_metadata(None)


@dataclass
class Report:
    """Counts the rows that were read, and those that were dropped for each reason, with examples."""

    command: str
    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def drop(self, reason: str, example: str) -> None:
        """Records a dropped row; `example` identifies it."""
        self.dropped[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(example)

    def show(self, console: Console) -> None:
        """Prints the report."""
        table = Table(box=box.SIMPLE, show_header=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_column(justify="right")
        table.add_column(style="dim", overflow="fold")
        table.add_row("rows read", f"{self.read:,}", "", "")
        for reason, count in self.dropped.most_common():
            examples = ", ".join(self.examples[reason])
            table.add_row(Text(reason), f"{count:,}", f"{count / max(1, self.read):.1%}", examples)
        table.add_row("[bold]kept", f"[bold]{self.kept:,}", f"{self.kept / max(1, self.read):.1%}", "")
        for name, value in self.figures.items():
            table.add_row(Text(name), Text(f"{value:,}" if isinstance(value, int | float) else str(value)), "", "")
        console.print(table)

    def as_json(self) -> dict[str, Any]:
        """For `run/report.json`."""
        return {
            "command": self.command,
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(self.dropped.most_common()),
            "examples": self.examples,
            **self.figures,
        }


class DatasetWriter:
    """The dataset folder of a tool with options `args`: `OutputOptions` and the `dataset` that was read. It is written
    under a temporary name and renamed when it is complete. In a dry run, nothing is written."""

    def __init__(self, args: Any) -> None:
        self.args = args
        self.folder: Path | None = None if args.dry_run else args.output
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._shards: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        if self.folder is not None:
            self._temporary = self.folder.with_name(self.folder.name + ".tmp")
            shutil.rmtree(self._temporary, ignore_errors=True)
            (self._temporary / "data").mkdir(parents=True)
            (self._temporary / "run").mkdir()

    def add(self, tables: Iterable[pa.Table], split: str = "train") -> None:
        """Appends rows to a split. A dry run does not even read them."""
        for table in tables if self.folder is not None else ():
            if split not in self._writers:
                path = self._temporary / "data" / f"{split}-{self._shards[split]:05d}.parquet"
                self._writers[split] = pq.ParquetWriter(path, table.schema, compression="zstd")
                self._shards[split] += 1
            self._writers[split].write_table(table)
            self._bytes[split] += table.nbytes
            if self._bytes[split] > SHARD_BYTES:
                self._writers.pop(split).close()
                self._bytes[split] = 0

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        """Writes a file in `run/`."""
        if self.folder is not None:
            text = "".join(line + "\n" for line in lines)
            (self._temporary / "run" / name).write_text(text, encoding="utf-8", errors="replace")

    def finish(self, report: Report, *, what: str, columns: Mapping[str, str] | None = None) -> None:
        """Prints the report, writes it and a card with all options, and gives the folder its final name. Raises
        `UserError` if no row is left."""
        args, console = self.args, Console()
        report.show(console)
        for writer in self._writers.values():
            writer.close()
        if self.folder is None:
            console.print("Nothing was written (--dry-run).", highlight=False)
            return
        if not report.kept:
            shutil.rmtree(self._temporary)
            raise UserError(f"no rows of {args.dataset} are left, so nothing was written: see the reasons above.")
        card = Path(args.dataset).expanduser() / "README.md"
        if card.is_file():  # documents how the source was produced
            shutil.copyfile(card, self._temporary / "run" / "source.md")
            what += " The card of the source is `run/source.md`."
        write_json(self._temporary / "run" / "report.json", report.as_json())
        settings = {
            name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            for name, value in vars(args).items()
            if value is not None and name not in ("dataset", "output", "dry_run", "dataset_config")
        }
        figures = {"rows read": report.read, **report.dropped, "rows kept": report.kept, **report.figures}
        write_dataset_card(
            self._temporary,
            what=what,
            sources=[args.dataset],
            settings=settings,
            figures=figures,
            columns=columns or {},
        )
        if self.folder.is_dir():  # empty
            self.folder.rmdir()
        self._temporary.rename(self.folder)
        console.print(f"The rows are in {self.folder}.", soft_wrap=True, highlight=False)
