"""`python -m open_r1.processes.guard FD GRACE WORD...`: runs a command and ends every process that it leaves behind.

FD is a pipe whose other end the launcher holds. When it closes, even because the launcher was killed, the guard ends
the command and all its descendants. The exit status is that of the command, or 128 plus the number of the signal that
ended it. torchrun's agent does not do this: after `kill -9` its workers keep running, and so do their children.
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
"""The status of shells for a command that does not exist."""


def main(argv: list[str]) -> int:
    """The command's exit status."""
    fd, grace, command = int(argv[0]), float(argv[1]), argv[2:]
    _prctl(SET_CHILD_SUBREAPER)  # orphans of the command become children of this process
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # only the launcher decides
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
    """All descendants of `pid` (default: this process)."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def end_processes(processes: list[psutil.Process], grace: float) -> None:
    """Sends SIGTERM; after `grace` seconds SIGKILL to those that still run and to their new children."""
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
    """Runs in the child. SIGUSR1 stays ignored: Slurm sends it to all processes, and it ends those without a
    handler."""
    _prctl(SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _prctl(option: int, value: int = 1) -> None:
    """Linux only; elsewhere orphans of a killed command may remain."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
