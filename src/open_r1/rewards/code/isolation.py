"""Isolation of programs: what they may see, and which users and limits they get."""

import itertools
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NOBODY = 65534
OWN_USERS = 1_800_000_000
_numbers = itertools.count()
SCRATCH_MB = 64
Kind = Literal["bubblewrap", "landlock", "limits"]

DEVICES = ("null", "full", "random", "urandom")
"""Devices that programs see. Not `zero`: shared mappings of it are memory that no limit counts."""
VISIBLE = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "include", "share/zoneinfo")
"""Folders in `/usr` that programs and compilers may read: not `/usr/local`, `/usr/src` or the rest of `/usr/share`."""

GIVEN = "/given"
"""Under bubblewrap, `/tmp` is the scratch folder, so visible folders in `/tmp` appear in this folder instead."""


@dataclass(frozen=True)
class Isolation:
    """How programs run: the `kind` of isolation, their `user`, and further folders that they may read (`read_only`).

    `user` None is the current one. With `NOBODY`, each sandbox without bubblewrap gets its own user, if there are
    enough. `shared_count`: the kernel's limit on processes also counts other processes of the user, so that only the
    judge's count of the program's own tree is strict.
    """

    kind: Kind
    user: int | None = None
    read_only: tuple[str, ...] = ()
    shared_count: bool = False


def interpreter() -> str:
    """The Python interpreter for programs: the system's, else the current one."""
    system = Path("/usr/bin/python3")
    return str(system) if system.exists() else os.path.realpath(sys.executable)


def visible(isolation: Isolation) -> list[str]:
    """Folders that programs may read, except symbolic links."""
    own = () if interpreter().startswith("/usr/bin/") else tuple(f"{sys.base_prefix}/{name}" for name in ("bin", "lib"))
    folders = [f"/usr/{name}" for name in VISIBLE] + [f"/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64")]
    return [f for f in (*folders, *own, *isolation.read_only) if Path(f).is_dir() and not Path(f).is_symlink()]


def bubblewrap(folder: Path, writable: bool, isolation: Isolation, filter_fd: int | None) -> list[str]:
    """The bubblewrap command line that precedes a command; `folder` becomes `/code`. `filter_fd` is the descriptor of
    the filter of system calls."""
    seen = {name: GIVEN + name if name.startswith("/tmp/") else name for name in visible(isolation)}
    view = [word for name, place in seen.items() for word in ("--ro-bind", name, place)]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            view += ["--symlink", str(path.readlink()), f"/{name}"]
    return [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        *("--cap-drop", "ALL"),
        *view,
        *(word for name in DEVICES for word in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")),
        *("--size", str(SCRATCH_MB << 20), "--tmpfs", "/dev/shm"),
        *("--size", str(SCRATCH_MB << 20), "--tmpfs", "/tmp"),
        *("--bind" if writable else "--ro-bind", str(folder), "/code"),
        *("--remount-ro", "/"),
        *("--chdir", "/tmp"),
        *(("--seccomp", str(filter_fd)) if filter_fd is not None else ()),
        "--",
    ]


def own_user() -> int | None:
    """A user that no other sandbox has, if this process is root: limits per user then apply to the sandbox, and its
    programs cannot reach others. None if the container has too few users."""
    user = OWN_USERS + (os.getpid() << 6) + next(_numbers) % 64
    for name in ("uid_map", "gid_map"):
        ranges = [list(map(int, line.split())) for line in Path("/proc/self", name).read_text().splitlines()]
        if not any(first <= user < first + count for first, _, count in ranges):
            return None
    return user


def process_limit(processes: int, isolation: Isolation, user: int | None) -> int:
    """RLIMIT_NPROC for a tree of `processes`. If the kernel also counts other processes of the user, the limit leaves
    room for them, and only stops programs that multiply between two checks of the judge."""
    if not isolation.shared_count or user not in (None, NOBODY):
        return processes
    user = os.geteuid() if user is None else user
    running = 0
    for tasks in Path("/proc").glob("[0-9]*/task"):
        with suppress(OSError):
            found = tasks.stat()
            running += found.st_nlink - 2 if found.st_uid == user else 0
    return running + 256 + processes
