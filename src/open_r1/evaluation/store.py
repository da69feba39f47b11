"""A benchmark's folder: samples are saved as they finish, so that a killed run resumes where it stopped.

`settings.json` has the settings of the samples. `samples.jsonl` grows while sampling. `samples.parquet` and
`results.json` are written when all samples are finished, each completely or not at all.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from open_r1.errors import UserError
from open_r1.files import keep_settings, lock_folder, write_json, write_whole
from open_r1.sampling.journal import Journal, Row, encodable

SCHEMA = pa.schema(
    {
        "index": pa.int64(),
        "id": pa.string(),
        "problem": pa.string(),
        "prompt": pa.string(),
        "gold": pa.string(),
        "sample": pa.int64(),
        "completion": pa.string(),
        "n_tokens": pa.int64(),
        "finish_reason": pa.string(),
        "extracted": pa.string(),
        "correct": pa.bool_(),
        "reason": pa.string(),
        "seed": pa.int64(),
    }.items()
)
"""One row per sample. `correct` is null if it could not be decided, `extracted` if no answer was found."""

RESULTS = ("task", "model", "n_problems", "num_samples", "pass@1", "ci95", "mean_tokens", "truncated", "no_answer")
"""Fields of every `results.json`."""


class SampleStore:
    """The samples in `folder` with these `settings`. Raises `UserError` if the saved ones have other settings.

    A row without `reason` is not graded yet.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.seconds = 0.0
        self.rows: dict[tuple[int, int], Row] = {}
        self._journal = Journal(folder / "samples.jsonl", self.saved)
        self._table = folder / "samples.parquet"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            keep_settings(folder / "settings.json", settings, folder)
        except OSError as error:
            raise self._journal.write_error(error) from error
        self._load()

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self.rows

    def saved(self) -> str:
        """Describes the saved samples, for messages."""
        return f"{len(self.rows)} finished samples are saved in {self.folder}. Run the same command to continue."

    def lock(self) -> IO[str]:
        """A context manager in which no other process can sample into the folder. Raises `UserError` if one does."""
        return lock_folder(
            self.folder,
            f"output is {self.folder}, but another process writes there: wait for it, or give another folder.",
        )

    def append(self, rows: Iterable[Row], seconds: float) -> None:
        """Saves finished samples, which took `seconds` since the last call. They are on disk when this returns."""
        rows = list(rows)
        self._journal.append([encodable(row, [n for n in SCHEMA.names if n in row]) for row in rows], seconds)
        self._record(rows)
        self.seconds += seconds

    def finish(self, results: Mapping[str, Any]) -> None:
        """Writes `samples.parquet` (problems in order) and `results.json`, and removes the journal."""
        rows = [encodable(self.rows[key], SCHEMA.names) for key in sorted(self.rows)]
        table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata({"seconds": f"{self.seconds:.3f}"}))
        try:
            write_whole(self._table, lambda path: pq.write_table(table, path, compression="zstd"))
            write_json(self.folder / "results.json", results)
            self._journal.clear()
        except OSError as error:
            raise self._journal.write_error(error) from error

    def _load(self) -> None:
        if self._table.exists():
            table = _read_table(self._table)
            self._record(table.to_pylist())
            self.seconds = float((table.schema.metadata or {}).get(b"seconds", 0))
        # A kill between writing the table and clearing the journal leaves rows in both.
        rows, seconds = self._journal.read(self.__contains__)
        self.seconds += seconds
        self._record(rows)

    def _record(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.rows[row["index"], row["sample"]] = row


def read_samples(folder: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """The rows of a finished benchmark's `samples.parquet`. Raises `UserError` if it is damaged or lacks columns."""
    path = folder / "samples.parquet"
    table = _read_table(path, columns)
    if absent := [name for name in columns or SCHEMA.names if name not in table.column_names]:
        raise _incomplete(path, "column", absent)
    return table.to_pylist()


def read_results(folder: Path) -> dict[str, Any]:
    """A finished benchmark's `results.json`. Raises `UserError` if the file is damaged or lacks figures."""
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, error) from error
    if absent := [name for name in RESULTS if not isinstance(results, dict) or name not in results]:
        raise _incomplete(path, "entry", absent)
    return results


def finished_folders(root: Path) -> list[Path]:
    """Folders of finished benchmarks: `root`, those in it, or in its `evaluation` folder. Raises `UserError`."""
    candidates = [root, *sorted(p for p in root.glob("*") if p.is_dir()), *sorted((root / "evaluation").glob("*"))]
    found = [path for path in candidates if (path / "results.json").is_file() and (path / "samples.parquet").is_file()]
    if not found:
        raise UserError(
            f"{root} has no finished benchmark (results.json and samples.parquet): give the --output folder of "
            "`open-r1 evaluate`, or the folder of one protocol in it if there are several."
        )
    return found


def _read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        return pq.ParquetFile(path).read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged ({error}): delete it and run `open-r1 evaluate` again.")


def _incomplete(path: Path, what: str, absent: Sequence[str]) -> UserError:
    return UserError(
        f"{path} has no {what} {absent[0]!r}: it is from an older version or another program. Delete the folder and "
        "run `open-r1 evaluate` again (or `open-r1 demo`)."
    )
