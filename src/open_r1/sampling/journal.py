"""Finished samples on disk, one JSON line each, until they become part of a parquet file."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

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


class WriteError(UserError):
    """A folder cannot be written; the message says what is saved in it."""


class Journal:
    """Rows appended to `path` as they finish, together with the seconds that they took.

    `saved` says how many finished samples the folder holds, for messages.
    """

    def __init__(self, path: Path, saved: Callable[[], str]) -> None:
        self.path, self.saved = path, saved

    def read(self) -> list[Row]:
        """All rows; a last line that a kill cut short is removed. Raises UserError for any other damage."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("rb+") as file:
                file.truncate(whole)
        rows = []
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise UserError(f"{self.path}, line {number}: not JSON. Delete the line to continue.") from error
        return rows

    def append(self, rows: Sequence[Row], seconds: float) -> None:
        """Appends rows, which are on disk when this returns. Raises WriteError."""
        share = seconds / max(len(rows), 1)
        text = "".join(json.dumps(row | {"seconds": share}) + "\n" for row in rows)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
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


def encodable(row: Row, names: Iterable[str]) -> Row:
    """The columns `names` of `row`; lone surrogates, which models do produce, become question marks."""

    def text(value: Any) -> Any:
        return value.encode(errors="replace").decode() if isinstance(value, str) else value

    return {name: text(row.get(name)) for name in names}
