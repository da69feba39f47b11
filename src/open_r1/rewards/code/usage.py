"""Measures the resources of a process tree through /proc, and kills the tree."""

import os
import signal
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from open_r1.rewards.code.inside import MOST_FILES, read, tree

_TICKS = os.sysconf("SC_CLK_TCK")
_MEMORY = (b"VmRSS:", b"VmPTE:", b"VmSwap:")


@dataclass(frozen=True)
class Usage:
    """The current `pids` and `memory_bytes` (including page tables and swapped pages), and `cpu_seconds` so far,
    including those of ended processes."""

    pids: list[int]
    memory_bytes: int
    cpu_seconds: float


def usage(pid: int) -> Usage:
    """The usage of `pid` and its descendants."""
    pids = tree(pid)
    kilobytes = ticks = 0
    for each in pids:
        with suppress(OSError):
            ticks += sum(map(int, read(f"/proc/{each}/stat").rpartition(b")")[2].split()[11:15]))
            lines = read(f"/proc/{each}/status").splitlines()
            kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith(_MEMORY))
    return Usage(pids, kilobytes << 10, ticks / _TICKS)


def overfull(folder: Path, pids: list[int], most_bytes: int) -> bool:
    """Whether processes hold more than `most_bytes` in files, in `folder` or open but removed, or map a removed file
    that they have not open; or whether `folder` has too many files, or a folder that cannot be read."""
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
    for pid in pids:
        opened = _opened_without_name(pid)
        held += sum(opened.values())
        only_mapped = _mapped_without_name(pid, folder) - opened.keys()  # of unknown size
        if held > most_bytes or only_mapped:
            return True
    return False


def _opened_without_name(pid: int) -> dict[int, int]:
    """The bytes of removed files that a process still has open, by inode."""
    held = {}
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            found = descriptor.stat()
            if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                held[found.st_ino] = found.st_blocks * 512
    return held


def _mapped_without_name(pid: int, folder: Path) -> set[int]:
    """The inodes of removed files of `folder` that a process has mapped."""
    inside = os.fsencode(folder.resolve()) + b"/"
    with suppress(OSError):
        lines = read(f"/proc/{pid}/maps").splitlines()
        return {int(line.split(None, 5)[4]) for line in lines if inside in line and line.endswith(b" (deleted)")}
    return set()


def kill_tree(process: subprocess.Popen) -> None:
    """Kills a process and its descendants. The process itself is last, so that those that it adopts die with it."""
    if process.poll() is None:
        for pid in reversed(tree(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()
