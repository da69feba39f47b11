"""Programs that are being judged, in threads beside whatever else goes on.

The same program on the same tests is judged once: among the completions of a batch, and where judging began while
others were still being written.
"""

import atexit
import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from open_r1.rewards.pool import cores


class JudgingQueue:
    """Verdicts by what decides them, from the moment they are asked for until `forget`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Starts empty: what a forked child must do."""
        self._lock = threading.Lock()
        self._futures: dict[bytes, Future] = {}
        self._threads: dict[int, ThreadPoolExecutor] = {}

    def submit(self, parts: Iterable[Any], judge: Callable[[], Any], num_parallel: int) -> tuple[bytes, Future]:
        """The key and the future of a verdict, which is begun unless it was before. `parts` decide it: their `repr`
        tells it from others. At most `num_parallel` run at once (0: this process's share of the cores)."""
        key = hashlib.sha256(repr(tuple(parts)).encode(errors="replace")).digest()
        with self._lock:
            if key not in self._futures:
                size = num_parallel or cores()
                if size not in self._threads:
                    self._threads[size] = ThreadPoolExecutor(size, thread_name_prefix="judge")
                self._futures[key] = self._threads[size].submit(judge)
            return key, self._futures[key]

    def forget(self, keys: Iterable[bytes]) -> None:
        """Drops verdicts that were read."""
        with self._lock:
            for key in keys:
                self._futures.pop(key, None)

    def close(self) -> None:
        """Begins no more."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)


JUDGING = JudgingQueue()
atexit.register(JUDGING.close)
os.register_at_fork(after_in_child=JUDGING.reset)
