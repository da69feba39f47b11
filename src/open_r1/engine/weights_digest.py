"""A digest of a model's weights, cached between runs.

Hashing reads each file once, at disk speed. The result is stored in the user's cache folder and reused as long as the
file's path, size, modification time and inode stay the same.
"""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

CHUNK = 16 << 20
SETTLED_NS = 2_000_000_000
"""A file that changed less than two seconds ago may change again without a new modification time."""


def weights_digest(model: str, revision: str | None = None) -> str | None:
    """Short SHA-256 of all bytes of a local folder's weight files, and of the base's for LoRA adapters.

    The commit of a hub id, as the local cache has it; None where there is neither.
    """
    folder = Path(model).expanduser()
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not files:
        return None if folder.exists() else _commit(model, revision)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {file_digest(path)}\n".encode())
    adapters = folder / "adapter_config.json"
    if adapters.is_file() and not (folder / "config.json").exists():
        digest.update(adapters.read_bytes())
        base = json.loads(adapters.read_text(encoding="utf-8")).get("base_model_name_or_path")
        digest.update(f"base {weights_digest(base) if base else None}\n".encode())
    return digest.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, from the cache if path, size, modification time and inode are those it was hashed with."""
    path = path.resolve()
    status = path.stat()
    identity = [str(path), status.st_size, status.st_mtime_ns, status.st_ino]
    entry = _cache_folder() / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(entry.read_text(encoding="utf-8"))
        if known["file"] == identity:
            return known["sha256"]
    digest = _hash(path)
    if time.time_ns() - status.st_mtime_ns > SETTLED_NS:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the run
            entry.parent.mkdir(parents=True, exist_ok=True)
            temporary = entry.with_name(f"{entry.name}.{os.getpid()}.tmp")
            temporary.write_text(json.dumps({"file": identity, "sha256": digest}), encoding="utf-8")
            temporary.replace(entry)
    return digest


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "open_r1" / "weights"


def _commit(model: str, revision: str | None) -> str | None:
    try:
        found = try_to_load_from_cache(model, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent.name if isinstance(found, str) else None
