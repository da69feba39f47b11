"""Finished samples on disk, one JSON line each, until they become part of a parquet file."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from open_r1.errors import UserError

Row = dict[str, Any]

COMPLETION = pa.schema(
    {
        "index": pa.int64(),
        "sample": pa.int32(),
        "completion": pa.string(),
        "n_tokens": pa.int64(),
        "finish_reason": pa.string(),
        "seed": pa.int64(),
    }.items()
)
"""Columns of a completion."""
VERDICT = pa.schema({"extracted": pa.string(), "correct": pa.bool_(), "reason": pa.string()}.items())
"""Columns of its verdict; `correct` is null if it cannot be decided, `extracted` if no answer was found."""

REQUIRED = {"index": int, "sample": int, "completion": str}
"""Fields of every row of a journal."""


class WriteError(UserError):
    """A folder cannot be written; the message says what is saved in it."""


class Journal:
    """Rows appended to `path` as they finish, together with the seconds that they took.

    `saved` says how many finished samples the folder holds, for messages.
    """

    def __init__(self, path: Path, saved: Callable[[], str]) -> None:
        self.path, self.saved = path, saved

    def read(self, is_known: Callable[[tuple[int, int]], bool]) -> tuple[list[Row], float]:
        """The rows whose `(index, sample)` is not known, and the seconds that they took. Leaves out a last line that a
        kill cut short or that another process is writing. Raises UserError for any other damage."""
        rows: dict[tuple[int, int], Row] = {}
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict) or not all(isinstance(row.get(name), kind) for name, kind in REQUIRED.items()):
                raise UserError(f"{self.path}, line {number}: not a finished sample. Delete the line to continue.")
            if not is_known(key := (row["index"], row["sample"])):
                rows.setdefault(key, row)
        return list(rows.values()), sum(row.pop("seconds", 0.0) for row in rows.values())

    def append(self, rows: Sequence[Row], seconds: float) -> None:
        """Appends rows, which are on disk when this returns. Raises WriteError."""
        share = seconds / max(len(rows), 1)
        text = "".join(json.dumps(row | {"seconds": share}) + "\n" for row in rows)
        try:
            with self.path.open("ab+") as file:
                _cut_incomplete_line(file)
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self.write_error(error) from error

    def clear(self) -> None:
        """Removes the file once its rows are stored elsewhere."""
        self.path.unlink(missing_ok=True)

    def write_error(self, error: OSError) -> WriteError:
        """The error to raise, which says what is saved."""
        reason = error.strerror or str(error)
        return WriteError(f"{self.path} cannot be written ({reason}). {self.saved()}")


def _cut_incomplete_line(file: BinaryIO) -> None:
    """Removes what follows the last newline, which a kill cut short."""
    if not file.tell():
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def encodable(row: Row, names: Iterable[str]) -> Row:
    """The columns `names` of `row`; lone surrogates, which models do produce, become question marks."""

    def text(value: Any) -> Any:
        return value.encode(errors="replace").decode() if isinstance(value, str) else value

    return {name: text(row.get(name)) for name in names}
