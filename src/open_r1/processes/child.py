"""Child processes that end with this one; their output is forwarded, and its last lines are remembered."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import psutil

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that would make a child of a training process join its process group."""
LAST_LINES = 40
GRACE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL."""


def new_log(prefix: str) -> Path:
    """An empty temporary file for the output of a process."""
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".log")
    os.close(descriptor)
    return Path(name)


@dataclass(frozen=True)
class Command:
    """A command line, and the environment variables that it needs in addition to those of this process."""

    argv: tuple[str, ...]
    environment: dict[str, str]

    def __str__(self) -> str:
        return shlex.join([*(f"{name}={value}" for name, value in self.environment.items()), *self.argv])


@dataclass(frozen=True)
class Failure:
    """The process that ended a launch, and how it failed."""

    process: str
    node: str
    exit_code: int
    reason: str
    last_lines: tuple[str, ...] = ()
    printed: bool = False
    """Whether that node has already printed these lines."""

    @property
    def status(self) -> int:
        """The exit status of the launch: that of the process, but never 0."""
        return self.exit_code or 1


class ChildProcess:
    """A command that runs under a guard (`guard.py`), so that it never outlives this process.

    Its output goes to this process's own output, or to the file `log`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.name = name
        self.log = log
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        read_end, self._alive = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "open_r1.processes.guard", str(read_end), str(grace), *command],
            pass_fds=[read_end],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**child_environment(), "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
        os.close(read_end)
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._forward_output, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """Exit status, or None while it runs; 128 plus a signal's number even if the guard itself was killed."""
        return _shell_status(self.process.poll())

    def wait(self, seconds: float | None = None) -> int | None:
        """Exit status, or None if it still runs after `seconds`."""
        with suppress(subprocess.TimeoutExpired):
            return _shell_status(self.process.wait(seconds))
        return None

    def signal_workers(self, number: signal.Signals) -> None:
        """Sends a signal to the processes that the command has started (the training processes of `accelerate
        launch`), because the command itself would end them at once. Without any, the command gets the signal."""
        with suppress(psutil.NoSuchProcess):
            for command in psutil.Process(self.process.pid).children():
                for process in command.children() or [command]:
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(number)

    def stop(self) -> None:
        """Ends the command and every process that it has started; SIGTERM first."""
        self.begin_stop()
        self.process.wait()
        self._reader.join(timeout=5.0)

    def begin_stop(self) -> None:
        """Starts ending the command, without waiting."""
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1

    def failure(self, node: str, reason: str | None = None) -> Failure:
        """The failure of the command: how it ended, or the `reason` for ending it."""
        code = self.poll()
        if code is not None:
            self._reader.join(timeout=5.0)
        reason = reason or f"ended with {describe_exit(code)}"
        return Failure(self.name, node, code or 0, reason, tuple(dict.fromkeys(self.lines)), self.log is None)

    def tail(self, count: int = 20) -> str:
        """The last lines of output, indented."""
        return "\n".join(f"  {line}" for line in list(self.lines)[-count:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _forward_output(self, stream: BinaryIO) -> None:
        target: BinaryIO = self.log.open("ab") if self.log else sys.stdout.buffer
        rest = b""
        while chunk := os.read(stream.fileno(), 65536):
            with suppress(OSError, ValueError):  # our output no longer has a reader
                target.write(chunk)
                target.flush()
            *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
            self.lines.extend(line.decode(errors="replace") for line in lines if line.strip())
        if rest.strip():
            self.lines.append(rest.decode(errors="replace"))
        if self.log:
            target.close()


def stop_all(children: Iterable[ChildProcess]) -> None:
    """Ends all of them at the same time."""
    children = list(children)
    for child in children:
        child.begin_stop()
    for child in children:
        child.stop()


def child_environment() -> dict[str, str]:
    """The environment of a child: this process's own without torchrun's variables, and with `open_r1` importable."""
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    return {name: value for name, value in os.environ.items() if name not in TORCHRUN} | {"PYTHONPATH": paths}


def _shell_status(code: int | None) -> int | None:
    return 128 - code if code is not None and code < 0 else code


def describe_exit(code: int | None) -> str:
    """An exit status in words. The guard returns 128 plus the number of a signal, as shells do."""
    number = -code if code is not None and code < 0 else (code or 0) - 128
    with suppress(ValueError):
        return f"exit code {code} ({signal.Signals(number).name})"
    return f"exit code {code}"
