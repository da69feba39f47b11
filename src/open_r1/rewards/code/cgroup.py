"""Control groups, the only memory limit that also counts what the kernel holds for a program.

They are available if this process may create a group next to or below its own: as root, in a container with delegated
groups, or (version 2) in a systemd session that is delegated to the user.
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
    """The group in which new groups are created, and its cgroup version."""

    folder: Path
    version: int


@dataclass(frozen=True)
class Group:
    """The group of a sandbox, which limits the memory of all its processes together."""

    folder: Path
    version: int

    def add(self, pids: list[int]) -> None:
        """Moves processes into the group. What they start from now on is in it, too."""
        for pid in pids:
            with suppress(ProcessLookupError):
                (self.folder / "cgroup.procs").write_text(str(pid))

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed a process of the group for lack of memory."""
        counts = read(f"{self.folder}/{'memory.events' if self.version == 2 else 'memory.oom_control'}")
        return any(int(line.split()[1]) > 0 for line in counts.splitlines() if line.startswith(b"oom_kill "))

    def remove(self) -> None:
        """Kills what still runs in the group, and removes it."""
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
    """A new group with a limit on memory, including swap; None if control groups are not available."""
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
    """This process's group in version 1, its parent in version 2, where groups with processes have no children. None
    if neither can be used. Removes the groups of processes that no longer exist."""
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
                with suppress(OSError):  # it may belong to a process in another namespace
                    left.rmdir()
        probe.mkdir()
        found = (probe / ("memory.max" if parent.version == 2 else "memory.limit_in_bytes")).exists()
        probe.rmdir()
        return found and os.access(parent.folder / "cgroup.procs", os.W_OK)
    except OSError:
        return False
