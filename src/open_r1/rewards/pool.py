"""Worker processes with hard limits: a request that takes too long ends its worker, not the run.

Workers are fresh interpreters (nothing is forked, so it works after CUDA has started and needs no main guard),
in sessions of their own (Ctrl-C does not reach them), and are reused until they fail. Limits are enforced from
outside by killing; no signals or alarms are used in the calling process, so any thread may ask.
"""

import atexit
import contextlib
import json
import math
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 120.0
END_SECONDS = 10
"""For a worker that cleans up; then it is killed."""
COMPARING = "open_r1.rewards.algebra"
"""The module in a worker that answers, unless another is given: its `answer(request)` takes and gives JSON."""
ENVIRONMENT = {
    # Python integers behave the same on every machine; gmpy2 would abort the process when memory ends.
    "SYMPY_GROUND_TYPES": "python",
    "MPMATH_NOGMPY": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
"""Of the workers: the same request gets the same reply in each of them."""


@dataclass(frozen=True)
class Reply:
    """`value` of the worker, or the limit that was hit: time, memory, nesting, or crash."""

    value: Any = None
    limit: str | None = None


class WorkerFailure(Exception):
    """The worker must be replaced; the message says which limit it hit."""


class Worker:
    """One worker process."""

    def __init__(
        self, seconds: float, memory_mb: int, module: str = COMPARING, end: signal.Signals = signal.SIGKILL
    ) -> None:
        self.seconds, self.end = seconds, end
        source = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "open_r1.rewards.worker", str(seconds), str(memory_mb), module, str(int(end))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, **ENVIRONMENT},
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests, self.replies = self.process.stdin, self.process.stdout
        try:
            self._read_line(START_SECONDS)
        except WorkerFailure as failure:
            raise RuntimeError(
                f"a grading worker cannot start ({failure}); `{sys.executable} -m open_r1.rewards.worker 5 "
                f"{memory_mb} {module}` shows why (memory_mb is {memory_mb})."
            ) from None

    def ask(self, request: dict) -> Reply:
        """Sends one request and waits for its reply. Raises `WorkerFailure`, with the worker dead."""
        try:
            self.requests.write(json.dumps(request).encode() + b"\n")
            self.requests.flush()
        except OSError:
            self.kill()
            raise WorkerFailure("crash") from None
        reply = Reply(**self._read_line(self.seconds))
        if reply.limit:
            self.kill()
            raise WorkerFailure(reply.limit)
        return reply

    def _read_line(self, seconds: float) -> Any:
        poll = select.poll()
        poll.register(self.replies, select.POLLIN | select.POLLHUP)
        deadline = time.monotonic() + seconds
        line = b""
        while not line.endswith(b"\n"):
            left = None if deadline == math.inf else max(0.0, deadline - time.monotonic()) * 1000
            if not poll.poll(left):
                self.kill()
                raise WorkerFailure("time")
            part = os.read(self.replies.fileno(), 65536)
            if not part:
                self.kill()
                raise WorkerFailure("crash")
            line += part
        return json.loads(line)

    def kill(self) -> None:
        """Ends the process; one that cleans up gets time for it."""
        self.process.send_signal(self.end)
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(BrokenPipeError):  # what a dead worker has not read is flushed on closing
            self.requests.close()
        self.replies.close()


class Pool:
    """At most `size` workers, each driven by a daemon thread of its own. One more is started, which takes seconds,
    only when all others are busy.

    A request that hits `seconds` of wall clock (inf: no limit) or `memory_mb` of address space (0: no limit) ends its
    worker; the next request gets a new one. With `end=signal.SIGHUP`, workers clean up before they end, and `close`
    waits for it.
    """

    def __init__(
        self,
        size: int | None = None,
        seconds: float = 5.0,
        memory_mb: int = 1024,
        module: str = COMPARING,
        end: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.size = size or default_size()
        self.seconds, self.memory_mb, self.module, self.end = seconds, memory_mb, module, end
        self._closed = False
        self.forget()
        _pools.add(self)

    def forget(self) -> None:
        """Starts empty, leaving workers and threads to their owner; forked children must call it."""
        self._tasks: queue.SimpleQueue[tuple[dict, Future] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._workers: set[Worker] = set()
        self._unfinished = 0
        self._lock = threading.Lock()

    def submit(self, request: dict) -> "Future[Reply]":
        """Queues a request; its future always ends in a `Reply`."""
        future: Future[Reply] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._unfinished += 1
            self._tasks.put((request, future))
            if len(self._threads) < min(self.size, self._unfinished):
                ahead = bool(self._threads)
                thread = threading.Thread(target=self._serve, args=(ahead,), name="grader", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def _serve(self, ahead: bool) -> None:
        """Answers requests with a worker of its own, which starts `ahead` of the first request if there are other
        workers: one of them may be free sooner."""
        worker: Worker | None = None
        if ahead:
            with contextlib.suppress(Exception):  # if it still cannot start, the first request says so
                worker = self._start()
        while (task := self._tasks.get()) is not None:
            request, future = task
            reply: Reply | Exception = Reply(limit="crash")
            for attempt in (1, 2):
                if self._closed:
                    break
                try:
                    worker = worker or self._start()
                    reply = worker.ask(request)
                except WorkerFailure as failure:
                    self._workers.discard(worker) if worker else None
                    worker = None
                    if str(failure) == "crash" and attempt == 1:
                        continue
                    reply = Reply(limit=str(failure))
                except Exception as error:
                    reply = error
                break
            with self._lock:
                self._unfinished -= 1
            if isinstance(reply, Reply):
                future.set_result(reply)
            else:
                future.set_exception(reply)

    def _start(self) -> Worker:
        worker = Worker(self.seconds, self.memory_mb, self.module, self.end)
        self._workers.add(worker)
        if self._closed:  # while this worker started, so `close` did not see it
            worker.kill()
            raise WorkerFailure("crash")
        return worker

    def close(self) -> None:
        """Ends all workers; requests still queued end in `crash`."""
        with self._lock:
            self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        workers = list(self._workers)
        for worker in workers:
            worker.process.send_signal(self.end)
        if self.end != signal.SIGKILL:
            for worker in workers:
                worker.kill()


def default_size() -> int:
    """Workers per process: its share of the machine's cores, at most 8."""
    return min(8, cores())


def cores() -> int:
    """This process's share of the machine's cores."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _close_all() -> None:
    for pool in list(_pools):
        pool.close()


def _forget_all() -> None:
    for pool in list(_pools):
        pool.forget()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all)
