"""Programs that are being judged beside whatever else goes on: in processes of their own, so that a trainer's
interpreter is free for it; on servers, in threads that wait for them.

The same program on the same tests is judged once: among the completions of a batch, and where judging began while
others were still being written.
"""

import atexit
import hashlib
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from open_r1.rewards.code import judge_worker
from open_r1.rewards.code.choose import trusted_isolation
from open_r1.rewards.code.judge import Result, Task, judge_task
from open_r1.rewards.code.providers import get_provider
from open_r1.rewards.pool import Pool, Reply, cores

logger = logging.getLogger(__name__)

Verdict = Callable[[], Result]
"""Waits for a result. Raises `UserError`."""


class JudgingQueue:
    """Verdicts by what decides them, from the moment they are asked for until `forget`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Starts empty: what a forked child must do."""
        self._lock = threading.Lock()
        self._verdicts: dict[bytes, Verdict] = {}
        self._threads: dict[int, ThreadPoolExecutor] = {}
        self._processes: dict[int, Pool] = {}

    def submit(
        self, task: Task, provider: str, e2b_router_url: str | None = None, num_parallel: int = 0
    ) -> tuple[bytes, Verdict]:
        """The key of a task, and its verdict, which is begun unless it was before. `provider` is one of `get_provider`.
        At most `num_parallel` run at once (0: this process's share of the cores)."""
        key = _key(provider, e2b_router_url, task)
        size = num_parallel or cores()
        with self._lock:
            if key not in self._verdicts:
                if provider in ("local", "unsafe"):
                    self._verdicts[key] = self._in_process(task, provider == "unsafe", size)
                else:
                    if size not in self._threads:
                        self._threads[size] = ThreadPoolExecutor(size, thread_name_prefix="judge")
                    runner = get_provider(provider, e2b_router_url)
                    self._verdicts[key] = self._threads[size].submit(judge_task, runner, task).result
            return key, self._verdicts[key]

    def _in_process(self, task: Task, unsafe: bool, size: int) -> Verdict:
        if size not in self._processes:
            self._processes[size] = Pool(size, math.inf, 0, judge_worker.__name__, end=signal.SIGHUP)
        request = judge_worker.request(task, trusted_isolation(unsafe), max(1, cores() // size))
        future = self._processes[size].submit(request)
        return lambda: _result(future, task)

    def forget(self, keys: Iterable[bytes]) -> None:
        """Drops verdicts that were read."""
        with self._lock:
            for key in keys:
                self._verdicts.pop(key, None)

    def close(self) -> None:
        """Begins no more, and ends what judges and where programs run."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        for pool in self._processes.values():
            pool.close()
        self.reset()


def _key(provider: str, e2b_router_url: str | None, task: Task) -> bytes:
    """Differs where anything does that decides a result. Tests may be megabytes: they are hashed as they are."""
    key = hashlib.sha256(repr((provider, e2b_router_url, replace(task, tests=[]))).encode(errors="replace"))
    for test in task.tests:
        for text in (test.input, test.output):
            data = text.encode(errors="surrogatepass")
            key.update(len(data).to_bytes(8, "little"))
            key.update(data)
    return key.digest()


def _result(future: "Future[Reply]", task: Task) -> Result:
    reply = future.result()
    if reply.limit:
        logger.warning("code rewards: the process that judges a program ended twice (%s), so the program fails.", reply)
        return Result(0, len(task.tests))
    return judge_worker.result(reply.value)


JUDGING = JudgingQueue()
atexit.register(JUDGING.close)
os.register_at_fork(after_in_child=JUDGING.reset)
