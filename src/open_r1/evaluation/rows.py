"""Rows of a benchmark: from the hub, from a file in a folder, or from a given file.

Rows are read on demand and never all in memory, because the tests of programs take gigabytes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from open_r1.errors import UserError, first_line
from open_r1.evaluation.problems import Source, Task, folder_name
from open_r1.hub import reading_hub

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
Row = Mapping[str, Any]


class JsonLines(Sequence[Row]):
    """Rows of files of JSON lines. Only the position of each row is in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    @cached_property
    def _places(self) -> list[tuple[Path, int, int]]:
        """File, number of the line and offset of each row."""
        places = []
        for path in self.paths:
            offset = 0
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        places.append((path, number, offset))
                    offset += len(line)
        return places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        path, number, offset = self._places[index]
        with path.open("rb") as file:
            file.seek(offset)
            return _parsed(file.readline(), path, number)

    def __iter__(self) -> Iterator[Row]:
        for path in self.paths:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _parsed(line, path, number)


def _parsed(line: bytes, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error}).") from None
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number}: expected a JSON object.")
    return row


def task_rows(task: Task, data_dir: Path | None) -> tuple[str, Sequence[Row]]:
    """Where the task's rows come from, for messages, and the rows. Raises `UserError`."""
    if task.source is None:
        return task.files[0], _file_rows(task, Path(task.files[0]))
    if data_dir is None:
        return task.source.id, _hub_rows(task.name, task.source)
    if not data_dir.is_dir():
        raise UserError(f"data_dir is {str(data_dir)!r}: there is no such folder.")
    path = local_file(task, data_dir)
    if path is not None:
        return str(path), _file_rows(task, path)
    parts = [data_dir / name for name in task.source.data_files]
    if parts and all(part.is_file() for part in parts):
        return str(data_dir), JsonLines(parts)
    names = ", ".join(dict.fromkeys(path.name for path in _candidates(task, data_dir)))
    raise UserError(
        f"task {task.name}: data_dir {data_dir} has none of {names}: add one, or omit --data-dir to read "
        f"{task.source.id} from the hub."
    )


def local_file(task: Task, data_dir: Path) -> Path | None:
    """The file with the task's problems in `data_dir`."""
    return next((path for path in _candidates(task, data_dir) if path.is_file()), None)


def _candidates(task: Task, data_dir: Path) -> list[Path]:
    return [data_dir / f"{name}{suffix}" for name in map(folder_name, task.files) for suffix in SUFFIXES]


def _file_rows(task: Task, path: Path) -> Sequence[Row]:
    from open_r1.data.load import load_split

    return JsonLines([path]) if task.programs and path.suffix == ".jsonl" else load_split(str(path))  # type: ignore[return-value]


def _hub_rows(name: str, source: Source) -> Sequence[Row]:
    from datasets import load_dataset
    from huggingface_hub import hf_hub_download

    if source.lacks:
        raise UserError(
            f"task {name}: {source.id} has no {source.lacks}: give --data-dir a folder with {folder_name(name)}.jsonl "
            "that includes them (docs/evaluation.md)."
        )
    try:
        with reading_hub(source.id, f"the data of task {name},"):
            if source.data_files:
                # By the files: `datasets` refuses a repository with a loading script, which LiveCodeBench's has.
                return JsonLines(
                    [
                        Path(hf_hub_download(source.id, file, repo_type="dataset", revision=source.revision))
                        for file in source.data_files
                    ]
                )
            return load_dataset(source.id, source.config, split=source.split, revision=source.revision)
    except UserError as error:
        raise UserError(f"{error} --data-dir DIR reads {folder_name(name)}.jsonl from a folder.") from error
    except Exception as error:
        reason = first_line(error)
        where = " ".join(filter(None, [source.id, source.config, source.revision and f"at {source.revision[:12]}"]))
        raise UserError(
            f"task {name}: {where} cannot be read from the hub ({reason}): to work without the hub, give --data-dir "
            f"a folder with {folder_name(name)}.jsonl."
        ) from error
