"""The GPUs that this process sees."""

import os
import shutil
import subprocess

import torch


def visible_devices() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(i) for i in range(count)]


def gpu_memory() -> int | None:
    """Bytes of the smallest GPU here; None without one. Asks the driver, so that no CUDA context is made."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True)
    sizes = [int(word) for word in done.stdout.split() if word.isdigit()]
    return min(sizes) * 2**20 if done.returncode == 0 and sizes else None
