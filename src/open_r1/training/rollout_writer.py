"""Writes rollouts in a thread, while the trainer learns from them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from open_r1.report.recorder import RunRecorder
from open_r1.training.ranks import Ranks


class RolloutWriter:
    """The rollouts of all ranks go to the main process, which has a `recorder`; the others have None."""

    def __init__(self, recorder: RunRecorder | None, ranks: Ranks) -> None:
        self.recorder, self.ranks = recorder, ranks
        self._thread = ThreadPoolExecutor(1, "rollouts-writer")
        self._pending: Future | None = None

    def write(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Begins to write the `rows` of a step. Collective; `wait` must follow before the next call."""
        rows = self.ranks.gather(list(rows))
        if self.recorder is not None:
            self._pending = self._thread.submit(self.recorder.log_rollouts, step, rows)

    def wait(self) -> None:
        """Returns when they are on the disk. Raises what writing them raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
