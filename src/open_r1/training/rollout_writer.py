"""Writes rollouts in a thread, while the trainer learns from them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from open_r1.report.recorder import RunRecorder
from open_r1.training.ranks import Ranks


class RolloutWriter:
    """Gathers the rollouts of all ranks in the main process, which writes them with its `recorder` (None elsewhere)."""

    def __init__(self, recorder: RunRecorder | None, ranks: Ranks) -> None:
        self.recorder, self.ranks = recorder, ranks
        self._thread = ThreadPoolExecutor(1, "rollouts-writer")
        self._pending: Future | None = None

    def write(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Starts writing the `rows` of a step. Collective; call `wait` before the next call."""
        rows = self.ranks.gather(list(rows))
        if self.recorder is not None:
            self._pending = self._thread.submit(self.recorder.log_rollouts, step, rows)

    def wait(self) -> None:
        """Waits until the rows are on disk. Raises the error of writing them, if there was one."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
