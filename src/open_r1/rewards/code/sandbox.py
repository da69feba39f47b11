"""Runs a program that nobody trusts, on this machine, under limits.

With bubblewrap: own user, process, network, mount and IPC namespaces; a read-only view of `/usr` and the
interpreter and nothing else of the machine; scratch folders in memory; an empty environment; a seccomp filter
(seccomp.py). Without it: resource limits only, which do not stop a program from reading files or using the network
(docs/rewards.md). Either way: processor time, wall clock, memory, number of processes, file size and output are
bounded, and the program is ended with everything that it started.
"""

import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from open_r1.rewards.code.seccomp import filter_program

logger = logging.getLogger(__name__)
NOBODY = 65534
START_SECONDS = 0.25
SCRATCH_MB = 64
Status = Literal["ok", "error", "time", "memory", "output", "processes"]


@dataclass(frozen=True)
class Limits:
    """Bounds of one run. `seconds` is processor time, so that a busy machine fails no program; `wall_seconds` bounds
    sleeping ones (default: twice that and two)."""

    seconds: float = 5.0
    wall_seconds: float | None = None
    memory_mb: int = 512
    processes: int = 24
    output_bytes: int = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `ok` (exit code 0), `error` (another one), or the limit that it hit; and what it printed."""

    status: Status
    stdout: str
    exit_code: int | None


@dataclass(frozen=True)
class Isolation:
    """What this machine offers: bubblewrap or not, and whether the program runs as another user."""

    bubblewrap: bool
    user: int | None = None
    read_only: tuple[str, ...] = field(default=())


def run(
    command: list[str],
    folder: Path,
    *,
    stdin: str = "",
    limits: Limits = Limits(),
    writable: bool = False,
    isolation: Isolation | None = None,
) -> Outcome:
    """Runs `command` with the files of `folder` (in the sandbox: `/code`, read-only unless `writable`).

    `{code}` in `command` becomes the path of the folder as the program sees it. The working directory is an empty
    scratch folder.
    """
    isolation = isolation or best_isolation()
    with tempfile.TemporaryDirectory(prefix="scratch-") as scratch:
        Path(scratch).chmod(0o777)
        seen = "/code" if isolation.bubblewrap else str(folder)
        argv = _limited([part.replace("{code}", seen) for part in command], limits)
        rules = _open_filter() if isolation.bubblewrap else None
        if isolation.bubblewrap:
            argv = _bubblewrapped(argv, folder, writable, isolation, rules)
        try:
            process = subprocess.Popen(
                argv,
                pass_fds=() if rules is None else (rules,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/" if isolation.bubblewrap else scratch,
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"},
                start_new_session=True,
                user=isolation.user,
                group=isolation.user,
                extra_groups=None if isolation.user is None else [],
            )
        finally:
            if rules is not None:
                os.close(rules)
        try:
            return _watch(process, stdin.encode(errors="replace"), limits)
        finally:
            _kill_tree(process)


def _open_filter() -> int | None:
    """File descriptor of the filter of system calls, at its beginning."""
    program = filter_program()
    if program is None:
        return None
    reader, writer = os.pipe()
    os.write(writer, program)
    os.close(writer)
    return reader


def _limited(command: list[str], limits: Limits) -> list[str]:
    cpu = int(limits.seconds) + 2
    return [
        "/usr/bin/prlimit",
        f"--as={limits.memory_mb << 20}",
        f"--cpu={cpu}:{cpu}",
        f"--nproc={limits.processes}",
        f"--fsize={SCRATCH_MB << 20}",
        "--core=0",
        *command,
    ]


def _bubblewrapped(
    command: list[str], folder: Path, writable: bool, isolation: Isolation, seccomp_fd: int | None
) -> list[str]:
    view = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib64", "lib32", "sbin"):
        path = Path("/", name)
        if path.is_symlink():
            view += ["--symlink", str(path.readlink()), f"/{name}"]
        elif path.is_dir():
            view += ["--ro-bind", f"/{name}", f"/{name}"]
    for folder_name in isolation.read_only:
        view += ["--ro-bind", folder_name, folder_name]
    return [
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
        *view,
        *("--dev", "/dev"),
        *("--size", str(SCRATCH_MB << 20), "--tmpfs", "/dev/shm"),
        *("--remount-ro", "/dev"),
        *("--size", str(SCRATCH_MB << 20), "--tmpfs", "/tmp"),
        "--bind" if writable else "--ro-bind",
        str(folder),
        "/code",
        *("--remount-ro", "/"),
        *("--chdir", "/tmp"),
        *(("--seccomp", str(seccomp_fd)) if seccomp_fd is not None else ()),
        "--",
        *command,
    ]


def _watch(process: subprocess.Popen, stdin: bytes, limits: Limits) -> Outcome:
    """Feeds the program and collects its output until it ends or hits a limit."""
    assert process.stdin is not None and process.stdout is not None
    wall_seconds = 2 * limits.seconds + 2 if limits.wall_seconds is None else limits.wall_seconds
    deadline = time.monotonic() + wall_seconds
    os.set_blocking(process.stdin.fileno(), False)
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN | select.POLLHUP)
    poll.register(process.stdin, select.POLLOUT)
    output = bytearray()
    status: Status | None = None
    reading = True
    while reading and status is None:
        for descriptor, _ in poll.poll(20):
            if descriptor == process.stdout.fileno():
                part = os.read(descriptor, 65536)
                output += part
                reading = bool(part)
            else:
                stdin = _feed(process, stdin, poll)
        usage = _usage(process.pid)
        if len(output) > limits.output_bytes:
            status = "output"
        elif usage.processes > limits.processes + 2:
            status = "processes"
        elif usage.resident > limits.memory_mb << 20:
            status = "memory"
        elif usage.cpu_seconds > limits.seconds + START_SECONDS or time.monotonic() > deadline:
            status = "time"
    exit_code = None
    if status is None:
        try:
            exit_code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = "time"
    if exit_code is not None and exit_code in (-signal.SIGXCPU, 128 + signal.SIGXCPU, 128 + signal.SIGKILL):
        status = "time"
    text = output[: limits.output_bytes].decode(errors="replace")
    return Outcome(status or ("ok" if exit_code == 0 else "error"), text, exit_code)


def _feed(process: subprocess.Popen, stdin: bytes, poll: select.poll) -> bytes:
    """Writes what fits; closes the pipe after the last byte, or when the program reads no more."""
    assert process.stdin is not None
    try:
        stdin = stdin[os.write(process.stdin.fileno(), stdin[:65536]) :] if stdin else stdin
    except BlockingIOError:
        return stdin
    except BrokenPipeError:
        stdin = b""
    if not stdin:
        poll.unregister(process.stdin)
        with suppress(BrokenPipeError):
            process.stdin.close()
    return stdin


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    queue = [pid]
    while queue and len(found) < 1000:
        current = queue.pop()
        found.append(current)
        with suppress(OSError):
            for thread in Path(f"/proc/{current}/task").iterdir():
                queue += map(int, (thread / "children").read_text().split())
    return found


@dataclass(frozen=True)
class Usage:
    """What a tree of processes holds (resident bytes) and has used."""

    processes: int
    resident: int
    cpu_seconds: float


def _usage(pid: int) -> Usage:
    pids = _descendants(pid)
    pages = ticks = 0
    for each in pids:
        with suppress(OSError, IndexError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
            pages += int(fields[21])
    return Usage(len(pids), pages * os.sysconf("SC_PAGE_SIZE"), ticks / os.sysconf("SC_CLK_TCK"))


def _kill_tree(process: subprocess.Popen) -> None:
    pids = _descendants(process.pid) if process.poll() is None else []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()


def python() -> str:
    """Interpreter for programs: the system's, else the one that runs this."""
    system = Path("/usr/bin/python3")
    return str(system) if system.exists() else os.path.realpath(sys.executable)


@lru_cache(maxsize=1)
def best_isolation() -> Isolation:
    """The strongest isolation that works here; said aloud when that is only resource limits."""
    users = [NOBODY, None] if os.geteuid() == 0 else [None]
    prefix = () if python().startswith("/usr/") else (sys.base_prefix,)
    candidates = [Isolation(True, user, prefix) for user in users] if shutil.which("bwrap") else []
    candidates += [Isolation(False, user) for user in users]
    for isolation in candidates:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            try:
                outcome = run([python(), "-c", "print(6 * 7)"], Path(folder), isolation=isolation)
            except (OSError, subprocess.SubprocessError):
                continue
        if outcome.stdout == "42\n":
            if not isolation.bubblewrap:
                logger.warning(
                    "code rewards: bubblewrap does not work here, so programs run under resource limits only and "
                    "can read files and use the network; install bubblewrap, or set code_provider to a remote one."
                )
            return isolation
    raise RuntimeError("code rewards: no way to run programs works here; prlimit (util-linux) is needed.")
