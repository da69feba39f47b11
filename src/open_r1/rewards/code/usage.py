"""What a tree of processes holds and has used, read from /proc; and its end."""

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """`processes`, `resident` bytes now, and `cpu_seconds` so far, those of ended processes included."""

    processes: int
    resident: int
    cpu_seconds: float


def tree(pid: int) -> list[int]:
    """A process and its descendants, at most 1,000."""
    found: list[int] = []
    queue = [pid]
    while queue and len(found) < 1000:
        current = queue.pop()
        found.append(current)
        with suppress(OSError):
            for thread in Path(f"/proc/{current}/task").iterdir():
                queue += map(int, (thread / "children").read_text().split())
    return found


def usage(pid: int) -> Usage:
    """Of the tree of `pid`."""
    pids = tree(pid)
    pages = ticks = 0
    for each in pids:
        with suppress(OSError, IndexError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
            pages += int(fields[21])
    return Usage(len(pids), pages * _PAGE, ticks / _TICKS)


def kill_tree(process: subprocess.Popen) -> None:
    """Ends a process with its descendants: they are stopped first, so that none starts another meanwhile."""
    for number in (signal.SIGSTOP, signal.SIGKILL) if process.poll() is None else ():
        seen: set[int] = set()
        for _ in range(20):
            new = set(tree(process.pid)) - seen
            for pid in new:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            seen |= new
            if not new:
                break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
