"""The GPUs of this machine, as torch and the driver report them. Imports torch only when called."""

import functools
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from open_r1.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch


def visible_devices() -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(i) for i in range(count)]


def gpu_count() -> int:
    """How many GPUs torch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu_memory() -> int | None:
    """Bytes of the smallest GPU here; None without one. Asks the driver, so that no CUDA context is made."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True)
    sizes = [int(word) for word in done.stdout.split() if word.isdigit()]
    return min(sizes) * 2**20 if done.returncode == 0 and sizes else None


def has_accelerator() -> bool:
    """Whether torch finds a GPU or another accelerator."""
    import torch

    return torch.accelerator.is_available()


def cuda_has_bf16() -> bool:
    """Whether there is a GPU that computes in bfloat16."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def to_device(values: "np.ndarray | torch.Tensor", device: "torch.device | str") -> "torch.Tensor":
    """`values` as a tensor on `device`. A GPU gets it without waiting for what it computes, so the host may run
    ahead."""
    import torch

    tensor = torch.as_tensor(values)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    pinned = torch.empty_like(tensor, pin_memory=True)
    pinned.numpy()[...] = tensor.numpy()  # `pin_memory` would wait for torch's threads
    return pinned.to(device, non_blocking=True)


@functools.cache
def device_memory(device: "torch.device") -> int:
    """Bytes of memory of a GPU, or of this machine."""
    import psutil
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def check_processes_fit() -> None:
    """Raises UserError if more training processes were started on this machine than it has GPUs."""
    import torch

    here, wanted = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if 0 < here < wanted:
        raise UserError(
            f"{wanted} processes were started on this machine, but it has {here} GPUs: give the launcher "
            f"--num_processes {here} (torchrun: --nproc_per_node {here})."
        )
