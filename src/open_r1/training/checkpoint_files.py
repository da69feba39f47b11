"""Checkpoint folders on disk: complete or absent, with a checksum of every file. Finds the newest undamaged one."""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from open_r1.errors import UserError, first_line
from open_r1.files import write_json

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
PREFIX = "checkpoint-"


def seal(folder: Path) -> None:
    """Writes the size and SHA-256 of every file in `folder` to `checksums.json`. Returns when everything is on disk."""
    files = _files(folder)
    with ThreadPoolExecutor() as pool:
        sums = dict(zip(map(str, files), pool.map(lambda name: _synced_checksum(folder / name), files), strict=True))
    write_json(folder / CHECKSUMS, sums)
    _sync(folder / CHECKSUMS)
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        _sync(path)


def publish(staged: Path, final: Path) -> None:
    """Gives a sealed folder its final name, so that a crash or a power failure cannot undo it."""
    shutil.rmtree(final, ignore_errors=True)
    staged.rename(final)
    _sync(final.parent)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None. A checkpoint without checksums (of an earlier version) is trusted."""
    if not (checkpoint / TRAINER_STATE_NAME).is_file():
        return f"{TRAINER_STATE_NAME} is missing"
    path = checkpoint / CHECKSUMS
    if not path.exists():
        return _damage_without_checksums(checkpoint)
    try:
        expected = {name: (int(size), str(digest)) for name, (size, digest) in json.loads(path.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError):
        return f"{CHECKSUMS} cannot be read"
    for name, (size, _) in expected.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if (found := (checkpoint / name).stat().st_size) != size:
            return f"{name} has {found:,} of {size:,} bytes"
    with ThreadPoolExecutor() as pool:
        for name, found in zip(expected, pool.map(lambda name: _checksum(checkpoint / name), expected), strict=True):
            if found != expected[name][1]:
                return f"{name} has another checksum"
    return None


def choose_checkpoint(output_dir: Path, named: str | None) -> Path | None:
    """The checkpoint to continue from: `named`, or the newest one that is undamaged; None if there is none at all.

    Damaged checkpoints are logged, and renamed so that they no longer count as checkpoints. Raises UserError if
    `named`, or every checkpoint, is damaged.
    """
    if named is not None:
        if problem := damage(Path(named)):
            raise UserError(
                f"{named} is not a complete checkpoint ({problem}): set resume_from_checkpoint to a folder "
                "checkpoint-N, or omit it to continue from the newest undamaged one."
            )
        return Path(named)
    damaged: dict[Path, str] = {}
    for path in _newest_first(output_dir):
        problem = damage(path)
        if problem is None:
            for bad, why in damaged.items():
                bad.rename(bad.with_name(f"damaged-{bad.name}"))
                logger.warning("%s is damaged (%s), so this run continues from %s.", bad, why, path.name)
            return path
        damaged[path] = problem
    if damaged:
        listed = "; ".join(f"{path.name}: {why}" for path, why in damaged.items())
        raise UserError(
            f"output_dir {output_dir} has only damaged checkpoints ({listed}): delete these folders to start over."
        )
    return None


def last_checkpoint(output_dir: str | os.PathLike[str]) -> Path | None:
    """The newest checkpoint in `output_dir`, unchecked, or None."""
    whole = (path for path in _newest_first(Path(output_dir)) if (path / TRAINER_STATE_NAME).is_file())
    return next(whole, None)


def read_state(checkpoint: Path) -> TrainerState:
    """Trainer's own state. Raises UserError if it cannot be read."""
    try:
        return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{checkpoint} is not a complete checkpoint ({TRAINER_STATE_NAME}: {error}): set resume_from_checkpoint "
            "to a folder checkpoint-N, or delete the folder to continue from the previous checkpoint."
        ) from error


TORCH_WRITER = ("inline_container.cc", "PytorchStreamWriter", "iostream error")
"""What `torch.save` says if it cannot write: its source file, its class, or the C++ stream; never the reason."""


@contextmanager
def saving(folder: Path, what: str, remedy: str) -> Iterator[None]:
    """Turns errors of the disk into a UserError. Other errors, such as the crash of another process, are passed on."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and not any(mark in str(error) for mark in TORCH_WRITER):
            raise
        free = shutil.disk_usage(folder).free / 2**30
        cause = "Make room" if _disk_is_full(error) else "Fix that"
        raise UserError(
            f"output_dir {folder}: {what} could not be written ({first_line(error)}); {free:.1f} GiB are free there. "
            f"{cause} and {remedy}"
        ) from error


def _disk_is_full(error: Exception) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in full
    # torch and safetensors only give a text, torch's without the reason.
    return isinstance(error, RuntimeError) or any(f"os error {number}" in str(error) for number in full)


def _newest_first(output_dir: Path) -> list[Path]:
    numbered = {
        int(number): path
        for path in output_dir.glob(f"{PREFIX}*")
        if (number := path.name.removeprefix(PREFIX)).isdigit() and path.is_dir()
    }
    return [numbered[number] for number in sorted(numbered, reverse=True)]


def _damage_without_checksums(checkpoint: Path) -> str | None:
    """A schedule without its optimizer: a model alone (`save_only_model`) has neither."""
    optimizers = ("optimizer*", "global_step*", "pytorch_model_fsdp*")
    if (checkpoint / "scheduler.pt").exists() and not any(any(checkpoint.glob(name)) for name in optimizers):
        return "optimizer.pt is missing"
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)


def _synced_checksum(path: Path) -> list[Any]:
    _sync(path)
    return [path.stat().st_size, _checksum(path)]


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
