"""What a launch asked for against what runs: accelerate can start fewer processes, or shard nothing, and not say so."""

import json
import os
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator

from open_r1.errors import UserError
from open_r1.training.backends import DESCRIPTIONS, active_backend

VARIABLE = "OPEN_R1_EXPECTED"
SHARDING = {"FSDP": "FSDP", "DEEPSPEED": "DeepSpeed"}


def expectation(processes: int, config: Path) -> str:
    """For the environment of the training processes."""
    return json.dumps({"processes": processes, "sharding": sharding_of(config)})


def sharding_of(config: Path) -> str | None:
    """`FSDP` or `DeepSpeed`, if one of accelerate's files asks for it."""
    return SHARDING.get(str(yaml.safe_load(config.read_text(encoding="utf-8")).get("distributed_type", "")))


def describe_training(accelerator: Accelerator) -> str:
    """What runs, from the process group and the plugins themselves."""
    count, device = accelerator.num_processes, accelerator.device.type
    processes = f"{count} process{'es' if count > 1 else ''} on {device}"
    if count > 1:
        import torch.distributed as dist

        processes += f" ({dist.get_backend()})"
    return f"Training in {processes}, {_sharding(accelerator) or 'weights whole on each'}."


def check_expectation(accelerator: Accelerator) -> None:
    """Raises UserError if this is not what `open-r1 launch` was asked for; nothing without a launch."""
    text = os.environ.get(VARIABLE)
    if text is None:
        return
    expected: dict[str, Any] = json.loads(text)
    if accelerator.num_processes != expected["processes"]:
        raise UserError(
            f"{expected['processes']} training processes were asked for and {accelerator.num_processes} run together: "
            "accelerate did not connect them."
        )
    wanted, found = expected["sharding"], _sharding(accelerator)
    if wanted is not None and not (found or "").startswith(wanted):
        raise UserError(
            f"--accelerator asks for {wanted}, and accelerate runs without it on {accelerator.device.type} (weights "
            "whole on each process): take --accelerator ddp here, or a machine with GPUs."
        )


def _sharding(accelerator: Accelerator) -> str | None:
    backend = active_backend(accelerator)
    return None if backend in ("single", "ddp") else DESCRIPTIONS[backend]
