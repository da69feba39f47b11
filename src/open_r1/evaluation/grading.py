"""From completions to graded samples on disk, beside the engine that writes more of them."""

import queue
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from open_r1.engine.protocol import Completion, token_count
from open_r1.evaluation.plan import Ask
from open_r1.evaluation.store import Row, SampleStore
from open_r1.evaluation.tasks import Problem
from open_r1.report.sampling_progress import SamplingProgress
from open_r1.rewards import Verdict, grade_many

TOGETHER = 64
"""Requests that are graded and written at once at most: what a kill costs."""
READ_AHEAD = 1024
"""Requests that may wait to be graded before the engine has to."""

Finished = tuple[Ask, list[Completion]]


def graded(finished: Sequence[Finished]) -> list[Row]:
    """Samples as rows of `samples.parquet`, with the grader's verdicts."""
    pairs = [(ask, i, completion) for ask, completions in finished for i, completion in enumerate(completions)]
    judge = finished[0][0].problem.judge or compared_with_gold  # problems of one benchmark share it
    verdicts = judge([(ask.problem, completion.text) for ask, _, completion in pairs])
    return [
        {
            "index": ask.problem.index,
            "id": ask.problem.id,
            "problem": ask.problem.problem,
            "prompt": ask.problem.prompt,
            "gold": ask.problem.gold,
            "sample": ask.first + i,
            "completion": completion.text,
            "n_tokens": token_count(completion),
            "finish_reason": completion.finish_reason,
            "extracted": verdict.extracted,
            "correct": verdict.correct,
            "reason": verdict.reason,
            "seed": ask.seed,
        }
        for (ask, i, completion), verdict in zip(pairs, verdicts, strict=True)
    ]


def compared_with_gold(answers: Sequence[tuple[Problem, str]]) -> list[Verdict]:
    """Verdicts of the rewards' grader on completions, each with its problem."""
    return grade_many(completions=[text for _, text in answers], golds=[problem.gold for problem, _ in answers])


class SampleWriter:
    """Grades and keeps what is added, in a thread of its own: the engine waits for neither a grader nor a disk.

    A context manager; leaving it waits until everything is on disk, and raises what went wrong there.
    """

    def __init__(self, store: SampleStore, progress: SamplingProgress) -> None:
        self.store, self.progress = store, progress
        self.failures: list[str] = []
        """What was said of samples that failed."""
        self._waiting: queue.Queue[Finished | None] = queue.Queue(READ_AHEAD)
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)
        self._since = time.monotonic()
        self._error: BaseException | None = None

    def add(self, ask: Ask, completions: list[Completion]) -> None:
        """Takes a finished request. Raises what went wrong with an earlier one."""
        if self._error is not None:
            raise self._error
        self._waiting.put((ask, completions))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            try:
                if self._error is None:
                    self._keep(batch)
            except BaseException as error:
                self._error = error

    def _next(self) -> list[Finished] | None:
        """What has finished by now; None at the end."""
        item = self._waiting.get()
        batch = []
        while item is not None:
            batch.append(item)
            if len(batch) == TOGETHER or self._waiting.empty():
                return batch
            item = self._waiting.get()
        if batch:
            self._waiting.put(None)
        return batch or None

    def _keep(self, batch: Sequence[Finished]) -> None:
        self.failures.extend(c.text for _, completions in batch for c in completions if c.finish_reason == "error")
        missing = [
            row
            for row in graded(batch)
            if row["finish_reason"] != "error" and (row["index"], row["sample"]) not in self.store.rows
        ]
        now = time.monotonic()
        self.store.append(missing, now - self._since)
        self._since = now
        self.progress.add_samples(len(missing), sum(row["correct"] is True for row in missing))
