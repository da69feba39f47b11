"""Writes files completely or not at all, and guards folders: their settings, locks, free space."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from open_r1.errors import UserError


class OtherSettings(UserError):
    """A folder has results of other settings."""


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary path, and renames that to `path` once it is on disk."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` in UTF-8, completely or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, completely or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def explain_output(path: Path, option: str) -> Iterator[None]:
    """Turns an `OSError` of writing `path` inside the context into a `UserError` that names the option for another."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): give another {option}.") from error


def keep_settings(path: Path, settings: Mapping[str, Any], holder: Path) -> None:
    """Writes `settings` to `path` or, if the file exists, compares them with those in it.

    Raises `OtherSettings` with each setting that differs; `holder` is the folder that its message names.
    """
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        write_json(path, settings)
        return
    try:
        before = _flat(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): give another --output, or delete {holder}.") from error
    now = _flat(settings)
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        differences = "; ".join(f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in changed)
        raise OtherSettings(
            f"{holder} has samples with other settings ({differences}): continue with the same settings, give "
            "another --output, or delete the folder."
        )


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Makes a hard link if the file system supports it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def free_space(folder: Path) -> tuple[int, Path]:
    """Free bytes on the disk of `folder`, and the nearest existing folder above it."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(existing).free, existing


def check_writable(folder: Path) -> None:
    """Creates a run's folder if necessary. Raises `UserError` if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"output_dir is {folder}, which cannot be written to ({error.strerror}).") from error


def lock_folder(folder: Path, problem: str) -> IO[str]:
    """Locks `folder` until the returned file is closed or this process ends.

    Raises `UserError` with `problem` if another process has locked it. Does nothing on a file system without locks.
    """
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UserError(problem) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return lock


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def check_no_lfs_pointers(path: Path, field: str) -> None:
    """Raises `UserError` if `path` is, or contains, a file that Git LFS has not downloaded. `field` is the option that
    named it."""
    files = [path] if path.is_file() else sorted(p for p in path.glob("*") if p.is_file())
    for file in files:
        with file.open("rb") as data:
            if data.read(len(LFS_POINTER)) == LFS_POINTER:
                raise UserError(
                    f"{field}: {file} is a Git LFS pointer, not the file itself: run git lfs pull in its folder."
                )
