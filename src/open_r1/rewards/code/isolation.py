"""What separates a program from this machine, and which of it works here."""

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
"""Not `zero`: shared mappings of it are memory that no limit counts."""
VISIBLE = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "include", "share/zoneinfo")
"""Folders of `/usr` that programs and compilers see; not `/usr/local`, `/usr/src` or the rest of `/usr/share`."""

GIVEN = "/given"
"""Under bubblewrap `/tmp` is the scratch folder: visible folders that lie below it are seen below this one."""


@dataclass(frozen=True)
class Isolation:
    """How programs run: `kind`, as which user (None: this one; `NOBODY`: without bubblewrap each sandbox has a user of
    its own, where there are enough), and which folders they see besides.

    `shared_count`: the kernel's limit of processes counts other processes of the user too, so that only the count of
    the program's own tree is strict.
    """

    kind: Kind
    user: int | None = None
    read_only: tuple[str, ...] = ()
    shared_count: bool = False


def interpreter() -> str:
    """Interpreter for programs: the system's, else the one that runs this."""
    system = Path("/usr/bin/python3")
    return str(system) if system.exists() else os.path.realpath(sys.executable)


def visible(isolation: Isolation) -> list[str]:
    """Folders that programs may read, links among them left out."""
    own = () if interpreter().startswith("/usr/bin/") else tuple(f"{sys.base_prefix}/{name}" for name in ("bin", "lib"))
    folders = [f"/usr/{name}" for name in VISIBLE] + [f"/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64")]
    return [f for f in (*folders, *own, *isolation.read_only) if Path(f).is_dir() and not Path(f).is_symlink()]


def bubblewrap(folder: Path, writable: bool, isolation: Isolation, filter_fd: int | None) -> list[str]:
    """The command line in front of what runs with `folder` as `/code`."""
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
    """A user whom no other sandbox has, for a process that is root: limits per user are then those of the sandbox, and
    its programs reach no others. None where a container has too few users."""
    user = OWN_USERS + (os.getpid() << 6) + next(_numbers) % 64
    for name in ("uid_map", "gid_map"):
        ranges = [list(map(int, line.split())) for line in Path("/proc/self", name).read_text().splitlines()]
        if not any(first <= user < first + count for first, _, count in ranges):
            return None
    return user


def process_limit(processes: int, isolation: Isolation, user: int | None) -> int:
    """RLIMIT_NPROC for a tree of `processes`. Where the kernel counts the user's other processes too, it leaves room
    for them and only stops what multiplies faster than the judge looks."""
    if not isolation.shared_count or user not in (None, NOBODY):
        return processes
    user = os.geteuid() if user is None else user
    running = 0
    for tasks in Path("/proc").glob("[0-9]*/task"):
        with suppress(OSError):
            found = tasks.stat()
            running += found.st_nlink - 2 if found.st_uid == user else 0
    return running + 256 + processes
