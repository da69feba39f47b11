"""What a tree of processes holds and has used, read from /proc; and its end."""

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


MOST_FILES = 4096


@dataclass(frozen=True)
class Usage:
    """`pids` and `resident` bytes now, and `cpu_seconds` so far, those of ended processes included."""

    pids: list[int]
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
    return Usage(pids, pages * _PAGE, ticks / _TICKS)


def overfull(folder: Path, pids: list[int], most_bytes: int) -> bool:
    """Whether processes keep more than `most_bytes`, or too many files: in `folder`, or open without a name."""
    held = 0
    for number, found in enumerate(_files(folder, pids), 1):
        held += found.st_blocks * 512
        if held > most_bytes or number > MOST_FILES:
            return True
    return False


def _files(folder: Path, pids: list[int]) -> Iterator[os.stat_result]:
    for parent, folders, names in os.walk(folder):
        for name in folders + names:
            with suppress(OSError):
                yield os.lstat(f"{parent}/{name}")
    for pid in pids:
        with suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                found = descriptor.stat()
                if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                    yield found


def kill_tree(process: subprocess.Popen) -> None:
    """Ends a process with its descendants, the process itself last: what it adopts meanwhile ends with it."""
    if process.poll() is None:
        for pid in reversed(tree(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()
