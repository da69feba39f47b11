"""Records the environment of a run, and removes secrets from options."""

import dataclasses
import enum
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence, Set
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "math-verify")
EXTRAS = ("vllm", "deepspeed", "peft")
REMOVED = "<removed>"

_SECRET_NAME = re.compile(r"(^|_)(hub_token|(access|auth|api)_?(key|token)|password|passwd|secret)$", re.I)
_SECRET_VALUE = re.compile(r"\b(hf_|sk-|ghp_|github_pat_)[A-Za-z0-9_-]{16,}|(?<=://)[^/@\s]+(?=@)")


def describe_environment() -> dict[str, Any]:
    """Versions, devices, commit and command line of this process, ready for JSON."""
    return {
        "open_r1": package_versions()["open_r1"],
        "commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: version for name, version in package_versions().items() if name != "open_r1"},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": _devices(),
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
        "command": command_line(),
    }


def package_versions() -> dict[str, str]:
    """Versions of this package and of its main dependencies; extras only if they are installed."""
    import open_r1

    versions = {"open_r1": open_r1.__version__}
    for name in PACKAGES + EXTRAS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in PACKAGES:
                versions[name] = "not installed"
    return versions


def command_line(arguments: Sequence[str] | None = None) -> list[str]:
    """The words that started this process, with the values of secret options removed."""
    words = list(sys.argv if arguments is None else arguments)
    shown = []
    for before, word in zip(["", *words], words, strict=False):
        name, equals, _ = word.partition("=")
        if equals and _is_secret(name):
            shown.append(f"{name}={REMOVED}")
        else:
            shown.append(REMOVED if before.startswith("-") and _is_secret(before) else _without_secrets(word))
    return shown


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, `+changes` if it was edited; None elsewhere."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    return f"{commit}+changes" if commit and _git(root, "status", "--porcelain", "-uno") else commit


def plain(value: Any) -> Any:
    """`value` as the types that YAML and JSON share; arrays, tensors and sets become lists."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted(plain(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def redacted(options: Any) -> Any:
    """Plain options without secrets, which are found by name (`hub_token`, `api_key`) and by form (`hf_...`)."""
    if isinstance(options, dict):
        return {key: REMOVED if item and _is_secret(key) else redacted(item) for key, item in options.items()}
    if isinstance(options, list):
        return [redacted(item) for item in options]
    return _without_secrets(options) if isinstance(options, str) else options


def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name.lstrip("-").replace("-", "_")))


def _without_secrets(text: str) -> str:
    return _SECRET_VALUE.sub(REMOVED, text)


def _devices() -> list[str]:
    import torch

    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else ["cpu"]


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
