"""Folders for programs. They are in one folder per process; if the process dies, the next judge removes it."""

import atexit
import fcntl
import os
import secrets
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from open_r1.errors import UserError
from open_r1.rewards.code.inside import clean

PREFIX = "open-r1-programs-"


def new_folder(kind: str, mode: int) -> Path:
    """A new empty folder with the permissions `mode`; its name begins with `kind`. Raises `UserError`."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=_home()))
    except OSError as error:
        raise UserError(
            f"code rewards: cannot create a folder for programs ({error}): set TMPDIR to another folder."
        ) from None
    folder.chmod(mode)
    return folder


def new_file(kind: str, content: bytes) -> Path:
    """Writes a file that only this user may read. Raises `UserError`."""
    path: Path | None = None
    try:
        path = _home() / f"{kind}-{secrets.token_hex(8)}"
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
    except OSError as error:
        with suppress(OSError):
            if path is not None:
                path.unlink()
        raise UserError(
            f"code rewards: cannot write the test cases of a problem ({error}): set TMPDIR to another folder."
        ) from None
    return path


def remove(folder: Path) -> None:
    """Removes a folder, whatever programs have left in it."""
    with suppress(OSError):
        clean(str(folder))
        folder.rmdir()


@lru_cache(maxsize=1)
def _home() -> Path:
    """The folder of this process, which is locked as long as the process lives."""
    _remove_left()
    while True:
        home = Path(tempfile.mkdtemp(prefix=PREFIX))
        if _locked(home) is not None:
            home.chmod(0o711)
            atexit.register(_remove, home, os.getpid())
            return home


def _remove_left() -> None:
    """Removes the folders of processes that no longer exist."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_uid == os.geteuid() and (lock := _locked(folder)) is not None:
                remove(folder)
                os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that locks a folder until it is closed; None if another process has locked or removed it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _remove(home: Path, owner: int) -> None:
    if os.getpid() == owner:
        remove(home)


os.register_at_fork(after_in_child=_home.cache_clear)
