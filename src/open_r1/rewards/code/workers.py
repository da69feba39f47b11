"""Processes that judge programs, one at a time each.

A judge spends about a millisecond of Python on a test: threads of one process take turns for it, and take it from the
trainer that shares their interpreter. With processes, judging grows with the cores.
"""

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from open_r1.errors import UserError
from open_r1.rewards.code.choose import trusted_isolation
from open_r1.rewards.code.isolation import Isolation
from open_r1.rewards.code.judge import Case, Result, judge, python_checker
from open_r1.rewards.code.local import LocalProvider, close_sandboxes
from open_r1.rewards.code.programs import LANGUAGES, Language, Program
from open_r1.rewards.code.providers import Provider
from open_r1.rewards.code.sandbox import Limits, spawn

MOST_THREADS = 4
"""Programs that one process judges at once; beyond, each has a process of its own."""
_PR_SET_PDEATHSIG = 1
_MEANT_FOR_THE_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Work:
    """What `judge` gets; `checker` is the source of a `python_checker`."""

    submission: Program
    tests: list[Case]
    limits: Limits
    stop_at_failure: bool = False
    batch_size: int = 1
    checker: str | None = None


def judge_work(provider: Provider, work: Work, at_once: int) -> Result:
    """The result of `work`, of which `at_once` are done. In this process where that are few, where the program runs
    elsewhere, and where its tests run at once. Raises `UserError`."""
    if at_once > MOST_THREADS and work.batch_size == 1 and isinstance(provider, LocalProvider):
        return WORKERS.judge(work, trusted_isolation(provider.unsafe))
    return _judge(provider, work)


class Workers:
    """As many processes as programs are judged at once. They stay for the next."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Starts empty, leaving what there is to its owner: what a forked child must do."""
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def judge(self, work: Work, isolation: Isolation) -> Result:
        """The result of `work`. A process that ends meanwhile is replaced once. Raises `UserError`."""
        request = (work, isolation, LANGUAGES.get(work.submission.language))
        for attempt in (1, 2):
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            worker = worker or _Worker()
            try:
                reply = worker.ask(request)
            except (EOFError, OSError):
                worker.end()
                if attempt == 2:
                    raise RuntimeError("a process that judges programs ended twice on the same program") from None
                continue
            with self._lock:
                self._idle.append(worker)
            if isinstance(reply, Exception):
                raise reply
            return reply
        raise AssertionError("unreachable")

    def close(self) -> float:
        """Ends the processes; returns the processor seconds that their sandboxes used."""
        with self._lock:
            idle, self._idle = self._idle, []
        used = 0.0
        for worker in idle:
            with suppress(EOFError, OSError):
                used += worker.ask(None)
            worker.end()
        return used


class _Worker:
    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        source = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
        self._process = spawn(
            [sys.executable, "-P", "-c", f"from {__name__} import main; main({theirs.fileno()})"],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()

    def ask(self, request: Any) -> Any:
        """Its reply. Raises `EOFError` or `OSError` if it ends before."""
        self._connection.send(request)
        return self._connection.recv()

    def end(self) -> None:
        """Ends it with its sandboxes."""
        self._connection.close()
        self._process.send_signal(signal.SIGHUP)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _judge(provider: Provider, work: Work) -> Result:
    return judge(
        provider,
        work.submission,
        work.tests,
        work.limits,
        stop_at_failure=work.stop_at_failure,
        batch_size=work.batch_size,
        check=python_checker(provider, work.checker, work.limits) if work.checker else None,
    )


def _answer(work: Work, isolation: Isolation, language: Language | None) -> Result | Exception:
    if language is not None:
        LANGUAGES[language.name] = language
    try:
        return _judge(LocalProvider(isolation=isolation), work)
    except UserError as error:
        return UserError(str(error))


def main(descriptor: int) -> None:
    """In the process: answers what comes over the connection, until that is None or the parent ends."""
    connection = Connection(descriptor)
    os.set_inheritable(connection.fileno(), False)
    signal.signal(signal.SIGHUP, _leave)
    for number in _MEANT_FOR_THE_PARENT:
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which programs would inherit
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
    with suppress(EOFError, OSError):
        while (request := connection.recv()) is not None:
            connection.send(_answer(*request))
        connection.send(close_sandboxes())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is leaving


def _leave(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


WORKERS = Workers()
atexit.register(WORKERS.close)
os.register_at_fork(after_in_child=WORKERS.forget)
