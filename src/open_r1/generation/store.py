"""The folder of a run: completions are journaled as they finish, and become parquet shards atomically.

data/train-00000.parquet ...   finished rows: the source's columns, then the generated ones
run/settings.json              the settings that determine the rows; a folder with other settings is refused
run/journal.jsonl              finished completions that are in no shard yet
run/summary.json               figures, once every row is complete
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from open_r1.errors import UserError, first_line
from open_r1.files import keep_settings, lock_folder, write_whole
from open_r1.sampling.journal import COMPLETION, VERDICT, Journal, Row, encodable

PROMPT = "prompt"
"""Column with the messages that the model was sent."""
GENERATED = [PROMPT, *COMPLETION.names, *VERDICT.names]


class ShardStore:
    """Rows by `(index, sample)` in `folder`, `samples` for each of `problems`. Raises `UserError` if the folder belongs
    to another run, was made with other settings, cannot be written, or is being written by another process."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], problems: int, samples: int) -> None:
        self.folder, self.data, self.run = folder, folder / "data", folder / "run"
        self.done = np.zeros((problems, samples), dtype=bool)
        self.pending: list[Row] = []
        """Rows that are in no shard yet."""
        self.seconds = 0.0
        """Spent on the rows in `pending`."""
        self._journal = Journal(self.run / "journal.jsonl", self.saved)
        try:
            self._create()
            problem = f"output is {self.folder}, but another process writes there: wait for it, or give another folder."
            self._lock = lock_folder(self.run, problem)
            try:
                keep_settings(self.run / "settings.json", settings, folder)
                self._load()
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise self._journal.write_error(error) from error

    def __contains__(self, key: tuple[int, int]) -> bool:
        return bool(self.done[key])

    def saved(self) -> str:
        """What is saved, for messages."""
        return f"{int(self.done.sum())} finished rows are saved in {self.folder}. Run the same command to continue."

    def append(self, rows: Sequence[Row], seconds: float) -> None:
        """Saves finished completions, which took `seconds` since the last call; a kill afterwards cannot lose them."""
        self._journal.append([encodable(row, COMPLETION.names) for row in rows], seconds)
        self.seconds += seconds
        self._record(rows)

    def write_shard(self, table: pa.Table) -> None:
        """Writes `table`, the rows in `pending`, as a new shard."""
        paths = (self.data / f"train-{number:05d}.parquet" for number in itertools.count())
        path = next(path for path in paths if not path.exists())  # also in place of a damaged one that was deleted
        table = table.replace_schema_metadata({"seconds": f"{self.seconds:.3f}"})
        try:
            write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
            self._journal.clear()
        except OSError as error:
            raise self._journal.write_error(error) from error
        self.pending, self.seconds = [], 0.0

    def close(self) -> None:
        """Releases the folder's lock."""
        self._lock.close()

    def _create(self) -> None:
        if not (self.run / "settings.json").exists():
            files = (path for path in self.folder.rglob("*") if path.is_file() and path.parent != self.run)
            if found := ", ".join(sorted(path.name for path in itertools.islice(files, 3))):
                raise UserError(f"output is {self.folder}, which has other content ({found}): give a new folder.")
        self.data.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(exist_ok=True)

    def _load(self) -> None:
        for path in shard_files(self.folder):
            try:
                keys = pq.read_table(path, columns=["index", "sample"])
            except pa.ArrowException as error:
                raise UserError(
                    f"{path} is damaged ({first_line(error)}): delete it and run the same command, which generates its "
                    "rows again."
                ) from error
            self.done[keys["index"].to_numpy(), keys["sample"].to_numpy()] = True
        # A kill between writing a shard and clearing the journal leaves rows in both.
        rows, seconds = self._journal.read(self.__contains__)
        self.seconds += seconds
        self._record(rows)

    def _record(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.done[row["index"], row["sample"]] = True
            self.pending.append(row)


def shard_files(folder: Path) -> list[Path]:
    """The parquet files of a dataset folder, in order."""
    return sorted((folder / "data").glob("train-*.parquet"))
