"""vLLM's worker for GPUs that other processes use, too.

vLLM sizes its cache by the memory that is free on the whole GPU before and after a trial run. What a trainer or another
engine takes meanwhile is then taken for its own, and what they give back ends it. Here only this process' memory
counts, so that engines start at the same time, and beside whatever else the GPU does.
"""

from typing import Any

import torch
from vllm.v1.worker.gpu_worker import Worker

GRAPHS = 2**30
"""Bytes kept for CUDA graphs, which are captured after the cache is there."""
OTHER = 2**29
"""Bytes kept for what PyTorch does not allocate: libraries' workspaces and kernels loaded later."""


class GPUWorker(Worker):
    """Sizes its cache by its own memory."""

    cache_config: Any
    model_config: Any

    def determine_available_memory(self) -> int:
        """Bytes for the cache: the engine's share of the GPU, less what it had at the peak of a trial run, less a
        reserve. Raises `ValueError` where nothing is left."""
        before = torch.accelerator.memory_allocated()
        torch.accelerator.reset_peak_memory_stats()
        self.cache_config.kv_cache_memory_bytes = 1  # a size that is given: a trial run, and no look at the whole GPU
        super().determine_available_memory()
        peak = torch.accelerator.max_memory_allocated()
        reserve = OTHER if self.model_config.enforce_eager else OTHER + GRAPHS
        left = int(self.requested_memory) - peak - reserve
        if left <= 0:
            share, *parts = (b / 2**30 for b in (self.requested_memory, before, peak - before, reserve))
            raise ValueError(
                f"No memory is left for the cache: the share of the GPU is {share:.1f} GiB, and vLLM needs "
                "{:.1f} GiB for weights and buffers, {:.1f} for activations, {:.1f} for graphs and libraries".format(
                    *parts
                )
            )
        self.cache_config.kv_cache_memory_bytes = left
        return left
