"""Control groups: the one limit of memory that also counts what the kernel holds for a program.

One can be had where this process may make a group beside or below its own: as root, in a container that hands its
groups on, and (version 2) in a session of systemd that is delegated to the user. Otherwise there is none.
"""

import itertools
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from open_r1.rewards.code.inside import read

_numbers = itertools.count()


@dataclass(frozen=True)
class Parent:
    """Where groups are made."""

    folder: Path
    version: int


@dataclass(frozen=True)
class Group:
    """A group of a sandbox, made with `memory_mb` for all its processes together."""

    folder: Path
    version: int

    def add(self, pids: list[int]) -> None:
        """Moves processes here, and what they start from now on."""
        for pid in pids:
            with suppress(ProcessLookupError):
                (self.folder / "cgroup.procs").write_text(str(pid))

    def out_of_memory(self) -> bool:
        """Whether a process was ended for want of memory."""
        counts = read(f"{self.folder}/{'memory.events' if self.version == 2 else 'memory.oom_control'}")
        return any(int(line.split()[1]) > 0 for line in counts.splitlines() if line.startswith(b"oom_kill "))

    def remove(self) -> None:
        """Ends what still runs in the group, and removes it."""
        for _ in range(100):
            try:
                self.folder.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                for pid in (self.folder / "cgroup.procs").read_text().split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                time.sleep(0.01)


def new_group(memory_mb: int) -> Group | None:
    """A group with a limit of memory, swap included; None where none can be had."""
    parent = find_parent()
    if parent is None:
        return None
    folder = parent.folder / f"open-r1-{os.getpid()}-{next(_numbers)}"
    folder.mkdir()
    if parent.version == 2:
        (folder / "memory.max").write_text(str(memory_mb << 20))
        limits = {"memory.swap.max": 0}
    else:
        (folder / "memory.limit_in_bytes").write_text(str(memory_mb << 20))
        limits = {"memory.memsw.limit_in_bytes": memory_mb << 20}
    for name, value in limits.items():
        with suppress(OSError):  # kernels without swap accounting
            (folder / name).write_text(str(value))
    return Group(folder, parent.version)


@lru_cache(maxsize=1)
def find_parent(processes: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Parent | None:
    """Below this process's group in version 1, beside it in version 2 (whose groups with processes have no children).

    Groups that an earlier process left behind are removed.
    """
    for line in processes.read_text().splitlines() if processes.exists() else []:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            parent = Parent(root / "memory" / path.lstrip("/"), 1)
        elif not controllers and path != "/":
            parent = Parent((root / path.lstrip("/")).parent, 2)
        else:
            continue
        if _works(parent):
            return parent
    return None


def _works(parent: Parent) -> bool:
    probe = parent.folder / f"open-r1-{os.getpid()}-probe"
    try:
        for left in parent.folder.glob("open-r1-*"):
            if not Path("/proc", left.name.split("-")[2]).exists():
                with suppress(OSError):  # of another namespace, whose processes are not seen here
                    left.rmdir()
        probe.mkdir()
        found = (probe / ("memory.max" if parent.version == 2 else "memory.limit_in_bytes")).exists()
        probe.rmdir()
        return found and os.access(parent.folder / "cgroup.procs", os.W_OK)
    except OSError:
        return False
