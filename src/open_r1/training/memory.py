"""How much memory a process has taken."""

import resource
import sys

import torch


def peak_gib(device: torch.device) -> float:
    """The most that tensors held on a CUDA device, or elsewhere the most that the process held, so far, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
