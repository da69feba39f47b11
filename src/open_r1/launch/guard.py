"""`python -m open_r1.launch.guard FD GRACE WORD...`: runs a command, and leaves nothing of it behind.

The command ends when whoever started the guard ends, however that happens: FD is a pipe whose other end that process
holds, and which closes with it. What the command started and forgot is ended too. The exit status is the command's,
128 plus the signal's number if it died of one.
"""

import contextlib
import ctypes
import select
import signal
import subprocess
import sys
import time

import psutil

SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36
"""From linux/prctl.h."""
POLL_SECONDS = 0.1
NOT_STARTED = 127
"""The status that shells give for a command that is not there."""


def main(argv: list[str]) -> int:
    """The command's exit status."""
    fd, grace, command = int(argv[0]), float(argv[1]), argv[2:]
    _prctl(SET_CHILD_SUBREAPER)  # orphans of the command become children of this process
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the one at the other end of the pipe decides
    try:
        process = subprocess.Popen(command, preexec_fn=_before_command, close_fds=True)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_STARTED
    ended = False
    while process.poll() is None and not ended:
        ended = bool(select.select([fd], [], [], POLL_SECONDS)[0])
    if ended:
        end_processes(descendants(), grace)
    code = process.wait()
    end_processes(descendants(), 1.0)
    return code if code >= 0 else 128 - code


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """Every process below `pid` (this process), however deep."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def end_processes(processes: list[psutil.Process], grace: float) -> None:
    """SIGTERM, then after `grace` seconds SIGKILL for those that are left and all that they have started since."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace)
    deadline = time.monotonic() + 5.0
    while (alive := [p for p in {*alive, *descendants()} if _runs(p)]) and time.monotonic() < deadline:
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=0.5)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _before_command() -> None:
    """In the child. SIGUSR1 stays ignored: Slurm sends it to all processes, and it ends those that do not take it."""
    _prctl(SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _prctl(option: int, value: int = 1) -> None:
    """Linux only; elsewhere orphans of a killed command may stay."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
