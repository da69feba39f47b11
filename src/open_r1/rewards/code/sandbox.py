"""Runs untrusted programs on this machine, under limits.

A `Sandbox` is a process tree (isolation.py) in which `inside.py` starts the program for each test. Only output and exit
codes come out of it, and expected outputs never enter it. Whatever the isolation, there are limits on processor time,
wall-clock time, memory, processes, file sizes and output, and a program ends together with everything that it started.
"""

import json
import os
import resource
import select
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from open_r1.rewards.code import cgroup
from open_r1.rewards.code.folders import new_folder, remove
from open_r1.rewards.code.isolation import (
    SCRATCH_MB,
    Isolation,
    bubblewrap,
    interpreter,
    own_user,
    process_limit,
    visible,
)
from open_r1.rewards.code.pipes import Pipes, filled_pipe
from open_r1.rewards.code.seccomp import filter_program
from open_r1.rewards.code.usage import Usage, kill_tree, overfull, usage

START_SECONDS = 0.25
OWN_MEMORY_MB = 32
"""Room in a control group for bubblewrap and the server's interpreter."""
FIRST_LOOK, LOOK = 0.01, 0.02
DESCRIPTORS = 64
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",  # one thread per core of a large machine would exceed the limit of processes
    "MALLOC_ARENA_MAX": "2",  # by default one per thread, each with 64 MB of address space
}
Status = Literal["ok", "error", "time", "memory", "output", "processes"]


@dataclass(frozen=True)
class Limits:
    """Limits of one run. `seconds` is processor time, so that no program fails because the machine is busy;
    `wall_seconds` limits programs that sleep (default: `2 * seconds + 2`). `address_space`: also limit the address
    space to `memory_mb`, which does not suit runtimes that reserve more than they use. Resident memory is always
    limited."""

    seconds: float = 5.0
    wall_seconds: float | None = None
    memory_mb: int = 512
    processes: int = 24
    output_bytes: int = 1 << 20
    address_space: bool = True


@dataclass(frozen=True)
class Outcome:
    """How a run ended (`ok`: exit code 0, `error`: another one, else the limit that it hit), and what it printed."""

    status: Status
    stdout: str
    exit_code: int | None


class CannotStart(Exception):
    """The sandbox cannot start on this machine."""


class Sandbox:
    """Runs commands, one after another, which see the files of `folder` (as `/code` under bubblewrap; read-only unless
    `writable`).

    Runs share the process tree: after each one, all processes except the server (`inside.py`) are killed, and the
    scratch folders are emptied. After a run that hit a limit, or with resource limits only, the tree is replaced.
    """

    def __init__(
        self, folder: Path, isolation: Isolation, memory_mb: int = Limits.memory_mb, writable: bool = False
    ) -> None:
        self.folder, self.isolation, self.memory_mb, self.writable = folder, isolation, memory_mb, writable
        self._process: subprocess.Popen | None = None
        self._group: cgroup.Group | None = None
        self._control: socket.socket | None = None
        self._before: Usage | None = None
        """Usage before the next run: as at the start, except for the processor time."""
        self._scratch: Path | None = None
        self._user = isolation.user
        self._idle = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(self, command: list[str], stdin: str = "", limits: Limits = Limits(), *, forked: bool = False) -> Outcome:
        """Runs `command` in an empty scratch folder; `{code}` in it becomes the path of `folder`. With `forked`, the
        command must be a Python interpreter and a file; the file runs in a fork of the server's interpreter.

        Raises `CannotStart`.
        """
        self.start()
        assert self._process is not None and self._control is not None
        seen = "/code" if self.isolation.kind == "bubblewrap" else str(self.folder)
        request = {
            "command": [part.replace("{code}", seen) for part in command],
            "limits": self._resource_limits(limits),
            "forked": forked,
        }
        (stdin_read, stdin_write), (stdout_read, stdout_write) = os.pipe(), os.pipe()
        pipes = Pipes(stdin_write, stdout_read, stdin.encode(errors="replace"))
        self._idle = False
        try:
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], [stdin_read, stdout_write])
            finally:
                os.close(stdin_read)
                os.close(stdout_write)
            outcome = self._watch(pipes, limits)
            self._idle = outcome.status in ("ok", "error") and outcome.exit_code is not None
            return outcome
        finally:
            pipes.close()
            if not self._idle or self.isolation.kind == "limits":
                self.close()

    def start(self) -> None:
        """Starts the sandbox if it is not running. Raises `CannotStart`."""
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._start()

    @property
    def reusable(self) -> bool:
        """Whether nothing is left of what ran: no process and no file. Programs cannot have changed the server, because
        they cannot trace other processes and there is no /proc."""
        return self._idle and self.isolation.kind != "limits" and filter_program() is not None

    def _start(self) -> None:
        isolation = self.isolation
        contained = isolation.kind == "bubblewrap"
        rules = filter_program(attributes=contained or self.writable, locks=self.writable)
        pipe = filled_pipe(rules) if contained and rules is not None else None
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._scratch = None if contained else new_folder("scratch", 0o777)
        scratch = "/tmp" if self._scratch is None else str(self._scratch)
        if isolation.user is not None and not contained:
            self._user = own_user() or isolation.user
        confine = {
            "user": self._user,
            "read_only": [*visible(isolation), str(self.folder)] if isolation.kind == "landlock" else [],
            "writable": [scratch, *([str(self.folder)] if self.writable else [])],
            "filter": "" if rules is None else rules.hex(),
        }
        options = {
            "control": theirs.fileno(),
            "scratch": scratch,
            "confine": None if contained else confine,
            "preload": isolation.kind != "limits" and not self.writable,  # where it serves many programs
        }
        user = isolation.user if contained else None  # otherwise only programs change the user, not the server
        command = [interpreter(), "-c", _launcher(), json.dumps(options)]
        try:
            self._process = _spawn(
                [*bubblewrap(self.folder, self.writable, isolation, pipe), *command] if contained else command,
                pass_fds=[theirs.fileno(), *(() if pipe is None else (pipe,))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env={**ENVIRONMENT, "TMPDIR": scratch},
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        except OSError as error:
            self.close()
            raise CannotStart(str(error)) from None
        finally:
            theirs.close()
            if pipe is not None:
                os.close(pipe)
        assert self._process.stderr is not None
        self._control.settimeout(60)
        try:
            started = self._control.recv(64)
        except (TimeoutError, ConnectionResetError):
            started = b""
        if not started:
            kill_tree(self._process)
            errors = self._process.stderr.read().decode(errors="replace").split("\n")
            self.close()
            raise CannotStart("; ".join(errors[-3:]).strip("; ") or "it ends at once")
        self._process.stderr.close()
        self._control.settimeout(None)
        self._group = cgroup.new_group(self.memory_mb + OWN_MEMORY_MB)
        self._before = usage(self._process.pid)
        if self._group is not None:
            self._group.add(self._before.pids)

    def _resource_limits(self, limits: Limits) -> dict[str, int]:
        return {
            **({"AS": limits.memory_mb << 20} if limits.address_space else {}),
            "CPU": int(limits.seconds) + 2,
            "NPROC": process_limit(limits.processes, self.isolation, self._user),
            "FSIZE": SCRATCH_MB << 20,
            "NOFILE": DESCRIPTORS,
            # 1 is less than any dump; with 0, a machine that pipes dumps to a program would still do so
            "CORE": int(resource.getrlimit(resource.RLIMIT_CORE)[1] != 0),
        }

    def _watch(self, pipes: Pipes, limits: Limits) -> Outcome:
        """Feeds the program and collects its output until it ends or hits a limit."""
        assert self._process is not None and self._control is not None and self._before is not None
        before = self._before
        wall_seconds = 2 * limits.seconds + 2 if limits.wall_seconds is None else limits.wall_seconds
        most_seconds = limits.seconds + START_SECONDS
        began = time.monotonic()
        poll = select.poll()
        for descriptor, event in ((self._control.fileno(), select.POLLIN), (pipes.output, select.POLLIN)):
            poll.register(descriptor, event)
        poll.register(pipes.input, select.POLLOUT)
        status: Status | None = None
        exit_code: int | None = None
        look = began + FIRST_LOOK
        while status is None:
            ready = dict(poll.poll(max(0.0, look - time.monotonic()) * 1000))
            if pipes.output in ready and not pipes.read():
                poll.unregister(pipes.output)
            if pipes.input in ready and not pipes.feed():
                poll.unregister(pipes.input)
                pipes.close_input()
            if len(pipes.collected) > limits.output_bytes:
                status = "output"
            elif self._control.fileno() in ready:
                reply = self._reply()
                exit_code = reply.get("code")
                self._before = replace(before, cpu_seconds=reply.get("cpu_seconds", 0.0))
                pipes.read_rest(limits.output_bytes)
                full = reply.get("full") or len(pipes.collected) > limits.output_bytes
                status = "output" if full else self._ended(exit_code)
            elif (now := time.monotonic()) >= look:
                look = now + LOOK
                used = usage(self._process.pid)
                if len(used.pids) - len(before.pids) > limits.processes + 1:
                    status = "processes"
                elif used.memory_bytes - before.memory_bytes > limits.memory_mb << 20:
                    status = "memory"
                elif used.cpu_seconds - before.cpu_seconds > most_seconds or now - began > wall_seconds:
                    status = "time"
                elif self._scratch is not None and overfull(self._scratch, used.pids, SCRATCH_MB << 20):
                    status = "output"
        text = pipes.collected[: limits.output_bytes].decode(errors="replace")
        return Outcome(status, text, exit_code)

    def _reply(self) -> dict[str, Any]:
        """The server's reply; empty if the server has ended."""
        assert self._control is not None
        with suppress(ConnectionResetError):
            if reply := self._control.recv(256):
                return json.loads(reply)
        return {}

    def _ended(self, exit_code: int | None) -> Status:
        if self._group is not None and self._group.out_of_memory():
            return "memory"
        if exit_code == 0:
            return "ok"
        if exit_code in (-signal.SIGXCPU, 128 + signal.SIGXCPU, -signal.SIGKILL, 128 + signal.SIGKILL):
            return "time"
        return "error"

    def close(self) -> None:
        """Ends the sandbox and everything in it. The next run starts a new one."""
        if self._process is not None and self._control is not None:
            if self._idle or self.isolation.kind != "bubblewrap":  # the server kills all programs, then exits
                self._control.close()
                self._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(10)
            kill_tree(self._process)
        if self._control is not None:
            self._control.close()
        if self._group is not None:
            self._group.remove()
        if self._scratch is not None:
            remove(self._scratch)
        self._process = self._group = self._control = self._scratch = None


def run(
    command: list[str],
    folder: Path,
    *,
    stdin: str = "",
    isolation: Isolation,
    limits: Limits = Limits(),
    writable: bool = False,
) -> Outcome:
    """Runs `command` once, in a new sandbox."""
    with Sandbox(folder, isolation, limits.memory_mb, writable) as sandbox:
        return sandbox.run(command, stdin, limits)


def _spawn(*arguments: Any, **options: Any) -> subprocess.Popen:
    """`subprocess.Popen` in a thread that lives as long as this process. `bwrap --die-with-parent` ends a sandbox
    together with the thread that started it, but a sandbox must outlive the thread that first needs it."""
    return _starter.submit(subprocess.Popen, *arguments, **options).result()


def _new_starter() -> None:
    global _starter
    _starter = ThreadPoolExecutor(1, "sandboxes")


_starter = ThreadPoolExecutor(1, "sandboxes")
os.register_at_fork(after_in_child=_new_starter)


@cache
def _launcher() -> str:
    return Path(__file__).with_name("inside.py").read_text(encoding="utf-8")
