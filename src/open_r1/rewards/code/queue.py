"""Judges programs in the background: in separate processes, so that the trainer's interpreter stays free, or on
servers, with threads that wait for them.

The same program with the same tests is judged only once: within a batch of completions, and if judging began while
other completions were still being sampled.
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
from functools import partial

from open_r1.rewards.code import judge_worker
from open_r1.rewards.code.choose import trusted_isolation
from open_r1.rewards.code.judge import Result, Run, Submission, judge_submission
from open_r1.rewards.code.programs import Program
from open_r1.rewards.code.providers import get_provider
from open_r1.rewards.code.sandbox import Limits, Outcome
from open_r1.rewards.pool import Pool, Reply, cores

logger = logging.getLogger(__name__)

Verdict = Callable[[], Result]
"""Waits for a result and returns it. Raises `UserError`."""


class JudgingQueue:
    """Pending and finished verdicts, by everything that determines them, from `submit` until `forget`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Starts empty, without ending anything: a forked child must not use its parent's workers."""
        self._lock = threading.Lock()
        self._verdicts: dict[bytes, tuple[Verdict, Submission]] = {}  # a submission keeps the file of its test cases
        self._threads: dict[int, ThreadPoolExecutor] = {}
        self._processes: dict[int, Pool] = {}

    def submit(
        self, submission: Submission, provider: str, e2b_router_url: str | None = None, num_parallel: int = 0
    ) -> tuple[bytes, Verdict]:
        """The key and the verdict of a submission; starts judging it, unless that has begun. `provider` is a name for
        `get_provider`. At most `num_parallel` run at once (0: this process's share of the cores)."""
        key = _key(provider, e2b_router_url, submission)
        size = num_parallel or cores()
        with self._lock:
            if key not in self._verdicts:
                if provider in ("local", "unsafe"):
                    verdict: Verdict = partial(_result, self._ask(submission, provider == "unsafe", size), submission)
                else:
                    if size not in self._threads:
                        self._threads[size] = ThreadPoolExecutor(size, thread_name_prefix="judge")
                    runner = get_provider(provider, e2b_router_url)
                    verdict = self._threads[size].submit(judge_submission, runner, submission).result
                self._verdicts[key] = verdict, submission
            return key, self._verdicts[key][0]

    def result(self, submission: Submission) -> Result:
        """Judges a submission now, in a process on this machine. Equal submissions of several threads are judged
        once."""
        key, verdict = self.submit(submission, "local")
        try:
            return verdict()
        finally:
            self.forget([key])

    def run(self, program: Program, limits: Limits, stdin: str = "") -> Outcome:
        """Runs a program once, in the sandbox of a judging process. Raises `UserError`."""
        with self._lock:
            future = self._ask(Run(program, limits, stdin), unsafe=False, size=cores())
        reply = future.result()
        return Outcome("error", "", None) if reply.limit else judge_worker.outcome(reply.value)

    def _ask(self, task: Submission | Run, unsafe: bool, size: int) -> "Future[Reply]":
        if size not in self._processes:
            self._processes[size] = Pool(size, math.inf, 0, judge_worker.__name__, end=signal.SIGHUP)
        request = judge_worker.request(task, trusted_isolation(unsafe), max(1, cores() // size))
        return self._processes[size].submit(request)

    def forget(self, keys: Iterable[bytes]) -> None:
        """Drops verdicts that have been read."""
        with self._lock:
            for key in keys:
                self._verdicts.pop(key, None)

    def close(self) -> None:
        """Ends the judging processes and their sandboxes, and drops what has not begun."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        for pool in self._processes.values():
            pool.close()
        self.reset()


def _key(provider: str, e2b_router_url: str | None, submission: Submission) -> bytes:
    """A key that differs if anything differs that determines the result."""
    return hashlib.sha256(repr((provider, e2b_router_url, submission)).encode(errors="replace")).digest()


def _result(future: "Future[Reply]", submission: Submission) -> Result:
    reply = future.result()
    if reply.limit:
        logger.warning(
            "code rewards: the process that judges a program ended twice (%s), so the program fails.", reply.limit
        )
        return Result(0, submission.cases.count)
    return judge_worker.result(reply.value)


JUDGING = JudgingQueue()
atexit.register(JUDGING.close)
os.register_at_fork(after_in_child=JUDGING.reset)
