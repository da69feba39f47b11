"""Measures the resources of a process tree through /proc, and kills the tree."""

import os
import signal
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from open_r1.rewards.code.inside import MOST_FILES, read, tree

_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """The current `pids` and `resident` bytes, and `cpu_seconds` so far, including those of ended processes."""

    pids: list[int]
    resident: int
    cpu_seconds: float


def usage(pid: int) -> Usage:
    """The usage of `pid` and its descendants."""
    pids = tree(pid)
    pages = ticks = 0
    for each in pids:
        with suppress(OSError, IndexError):
            fields = read(f"/proc/{each}/stat").rpartition(b")")[2].split()
            ticks += sum(map(int, fields[11:15]))
            pages += int(fields[21])
    return Usage(pids, pages * _PAGE, ticks / _TICKS)


def overfull(folder: Path, pids: list[int], most_bytes: int) -> bool:
    """Whether processes hold more than `most_bytes` in files, in `folder` or open but removed; or whether `folder` has
    too many files, or a folder that cannot be read."""
    held = number = 0
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    held += entry.stat(follow_symlinks=False).st_blocks * 512
                    number += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:
            return True
        if number > MOST_FILES or held > most_bytes:
            return True
    return held + sum(map(_nameless, pids)) > most_bytes


def _nameless(pid: int) -> int:
    """Bytes in removed files that a process still has open."""
    held = 0
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            found = descriptor.stat()
            if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                held += found.st_blocks * 512
    return held


def kill_tree(process: subprocess.Popen) -> None:
    """Kills a process and its descendants. The process itself is last, so that those that it adopts die with it."""
    if process.poll() is None:
        for pid in reversed(tree(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()
