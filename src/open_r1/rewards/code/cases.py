"""Test cases in files for the judging processes.

They may take megabytes, and a problem has many completions, so they are written once and not sent with each program.
"""

import marshal
import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from open_r1.rewards.code.folders import new_file
from open_r1.rewards.text import RowError

LOADED = 4
"""Number of problems whose test cases a judging process keeps in memory."""


class Case(NamedTuple):
    """An input and the expected output."""

    input: str
    output: str


@dataclass(frozen=True, eq=False)
class StoredCases:
    """`count` test cases in a file, which is deleted together with this object."""

    path: str
    count: int = field(repr=False)

    def load(self) -> list[Case]:
        """The test cases."""
        return load(self.path)


@lru_cache(LOADED)
def load(path: str) -> list[Case]:
    """The test cases in a file of `store`."""
    return [Case(*case) for case in marshal.loads(Path(path).read_bytes())]


def store(cases: Sequence[Case]) -> StoredCases:
    """Writes test cases to a file, unless equal ones are there. Raises `UserError`."""
    key = tuple(cases)
    with _lock:
        stored = _stored.get(key)
        if stored is None:
            path = new_file("cases", marshal.dumps([tuple(case) for case in key]))
            stored = _stored[key] = StoredCases(str(path), len(key))
            weakref.finalize(stored, _remove, path, os.getpid()).atexit = False  # the folder goes then
        return stored


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        path.unlink(missing_ok=True)


def _forget() -> None:
    global _lock, _stored
    _lock, _stored = threading.Lock(), weakref.WeakValueDictionary()


_lock = threading.Lock()
_stored: weakref.WeakValueDictionary[tuple[Case, ...], StoredCases] = weakref.WeakValueDictionary()
os.register_at_fork(after_in_child=_forget)


def cases_of(cases: Any, row: int) -> list[Case]:
    """The test cases in a row of a dataset: a list of `{"input", "output"}`, or a dictionary of two lists. An input of
    None counts as empty. Raises `RowError` for anything else."""
    if not cases:
        return []
    if isinstance(cases, dict):
        inputs, outputs = cases.get("input") or [], cases.get("output") or []
        if len(inputs) != len(outputs):
            raise RowError(row, f"test_cases have {len(inputs)} inputs for {len(outputs)} outputs.")
        cases = [{"input": i, "output": o} for i, o in zip(inputs, outputs, strict=True)]
    if not isinstance(cases, list):
        raise RowError(row, f"test_cases are {cases!r:.80}: they must be a list of {{'input', 'output'}}.")
    return [_case(case, row) for case in cases]


def _case(case: Any, row: int) -> Case:
    if not isinstance(case, dict) or "input" not in case or case.get("output") is None:
        raise RowError(row, f"a test case is {case!r:.80}: it must have 'input' and 'output'.")
    return Case("" if case["input"] is None else str(case["input"]), str(case["output"]))
