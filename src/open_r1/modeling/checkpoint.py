"""The location of weights. This module does not import torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """A hub id or a local folder, and the option that names it."""

    name: str
    revision: str | None = None
    trust_remote_code: bool = False
    option: str = "model_name_or_path"

    @property
    def path(self) -> str:
        """`name`, with `~` expanded if it is a folder."""
        folder = Path(self.name).expanduser()
        return str(folder) if folder.is_dir() else self.name

    @property
    def hub_options(self) -> dict[str, Any]:
        """Arguments of every `from_pretrained`."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


def has_only_adapters(name: str) -> bool:
    """Whether `name` is a folder with LoRA adapters but without their base model."""
    folder = Path(name).expanduser()
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").exists()


def base_name(name: str) -> str:
    """The location of the full weights: the base model if `name` is a folder with only adapters, otherwise `name`."""
    if not has_only_adapters(name):
        return name
    adapters = Path(name).expanduser() / "adapter_config.json"
    return json.loads(adapters.read_text(encoding="utf-8"))["base_model_name_or_path"]
