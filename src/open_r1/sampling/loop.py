"""The loop: requests go to an engine; finished completions are saved at once, then graded, both in parallel to the
engine."""

import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from open_r1.engine.opening import OpenEngine
from open_r1.engine.protocol import Completion, Request, Sampling, token_count
from open_r1.errors import UserError, first_line
from open_r1.report.sampling_progress import SamplingProgress
from open_r1.rewards import Verdict
from open_r1.sampling.journal import Row, WriteError
from open_r1.sampling.requests import SampleRequest

READ_AHEAD = 1024
"""Finished requests that may wait for the disk before the engine has to wait; they are saved together."""
MAX_FAILURES = 100
"""Consecutive failed requests after which the run stops."""

Judge = Callable[[Sequence[tuple[Any, str]]], list[Verdict]]
"""Grades pairs of problem and completion."""


class SampleStore(Protocol):
    """Where samples are stored."""

    def __contains__(self, key: tuple[int, int]) -> bool: ...
    def append(self, rows: Sequence[Row], seconds: float) -> None: ...
    def saved(self) -> str: ...


@contextmanager
def reporting_saved(store: SampleStore) -> Iterator[None]:
    """Adds what `store` has saved to any error that stops the engine, torch's RuntimeError (out of memory) included."""
    try:
        yield
    except WriteError:
        raise
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}. {store.saved()}") from error
    except RuntimeError as error:
        reason = first_line(error)
        raise UserError(f"the engine stopped: {reason}. {store.saved()}") from error


def sample(engine: OpenEngine, requests: Iterable[SampleRequest], sampling: Sampling, writer: "SampleWriter") -> None:
    """Sends `requests` as the engine has room for them, and passes finished ones to `writer`."""
    waiting: dict[Hashable, SampleRequest] = {}

    def as_requests() -> Iterator[Request]:
        for sample_request in requests:
            request = sample_request.request(sampling)
            waiting[request.id] = sample_request
            yield request

    for key, completions in engine.engine.stream(as_requests()):
        writer.add(waiting.pop(key), completions)


class SampleWriter:
    """Saves samples in one thread and grades them in another, so that neither disk nor grader delays the engine, and
    a slow grader does not delay saving.

    A context manager; leaving it waits until everything is saved and graded, and raises the first error. `columns`
    gives the columns of a problem. The store has `room` for that many more requests; when there is none,
    `make_room` runs once everything saved is graded.
    """

    def __init__(
        self,
        store: SampleStore,
        judge: Judge,
        progress: SamplingProgress,
        *,
        columns: Callable[[Any], Row] = lambda problem: {},
        room: Callable[[], int] = lambda: READ_AHEAD,
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.store, self.judge, self.progress = store, judge, progress
        self.columns, self.room, self.make_room = columns, room, make_room
        self.failures: list[str] = []
        """The errors of failed samples."""
        self._failures_in_a_row = 0
        self._waiting: queue.Queue[tuple[SampleRequest, list[Completion]] | None] = queue.Queue(READ_AHEAD)
        self._saved: queue.Queue[list[tuple[Any, Row]] | None] = queue.Queue()
        self._saving = threading.Thread(target=self._save_all, name="samples", daemon=True)
        self._grading = threading.Thread(target=self._grade_all, name="verdicts", daemon=True)
        self.grading_seconds = 0.0
        """From the last save to the last verdict."""
        self._since = time.monotonic()
        self._error: BaseException | None = None

    def add(self, request: SampleRequest, completions: list[Completion]) -> None:
        """Adds a finished request. Raises the error of an earlier one."""
        if self._error is not None:
            raise self._error
        self._waiting.put((request, completions))

    def grade(self, rows: Sequence[tuple[Any, Row]]) -> None:
        """Adds a verdict to each of `rows`, pairs of problem and row."""
        verdicts = self.judge([(problem, row["completion"]) for problem, row in rows]) if rows else []
        for (_, row), verdict in zip(rows, verdicts, strict=True):
            row |= {"extracted": verdict.extracted, "correct": verdict.correct, "reason": verdict.reason}
        self.progress.add_graded(len(rows), sum(row["correct"] is True for _, row in rows))

    def __enter__(self) -> Self:
        self._saving.start()
        self._grading.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._saving.join()
        self._saved.put(None)
        self._grading.join()
        self.grading_seconds = time.monotonic() - self._since
        if error is None and self._error is not None:
            raise self._error

    def _save_all(self) -> None:
        while (batch := self._next()) is not None:
            try:
                if self._error is None:
                    self._save(batch)
                    if self.room() < 1:
                        self._saved.join()
                        if self._error is None:  # otherwise some samples have no verdict
                            self.make_room()
            except BaseException as error:
                self._error = error

    def _grade_all(self) -> None:
        while (rows := self._saved.get()) is not None:
            try:
                if self._error is None:
                    self.grade(rows)
            except BaseException as error:
                self._error = error
            finally:
                self._saved.task_done()

    def _next(self) -> list[tuple[SampleRequest, list[Completion]]] | None:
        """The requests that have finished by now; None at the end."""
        item = self._waiting.get()
        batch = []
        while item is not None:
            batch.append(item)
            if len(batch) >= min(READ_AHEAD, self.room()) or self._waiting.empty():
                return batch
            item = self._waiting.get()
        if batch:
            self._waiting.put(None)
        return batch or None

    def _save(self, batch: Sequence[tuple[SampleRequest, list[Completion]]]) -> None:
        rows: list[tuple[Any, Row]] = []
        for request, completions in batch:
            for key, completion in zip(request.keys, completions, strict=True):
                if completion.finish_reason == "error":
                    self.failures.append(completion.text)
                    self._failures_in_a_row += 1
                    continue
                self._failures_in_a_row = 0
                if key not in self.store:
                    rows.append((request.problem, self._row(request, key, completion)))
        now = time.monotonic()
        if rows:
            self.store.append([row for _, row in rows], now - self._since)
            self._since = now
            self.progress.add_finished(len(rows))
            self._saved.put(rows)
        if self._failures_in_a_row >= MAX_FAILURES:
            raise UserError(
                f"{self._failures_in_a_row} requests in a row failed, the last one with: {self.failures[-1]}"
            )

    def _row(self, request: SampleRequest, key: tuple[int, int], completion: Completion) -> Row:
        return {
            "index": key[0],
            **self.columns(request.problem),
            "sample": key[1],
            "completion": completion.text,
            "n_tokens": token_count(completion),
            "finish_reason": completion.finish_reason,
            "seed": request.seed,
        }
