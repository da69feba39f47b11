"""Activation checkpoints on the CPU: what a checkpointed layer keeps, its input, waits there for the backward pass."""

from typing import Any

from torch import nn
from torch.autograd.graph import save_on_cpu

from open_r1.internals.transformers import replace_checkpointing


def offload_checkpoints(model: nn.Module) -> None:
    """Has the checkpointed layers of `model` keep their inputs in the CPU's memory (pinned, if there is a GPU).

    Called after `gradient_checkpointing_enable`. What a layer keeps while it is recomputed stays on the GPU.
    """
    replace_checkpointing(model, _offloaded)


def _offloaded(checkpoint: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        with save_on_cpu(pin_memory=True):
            return checkpoint(*args, **kwargs)

    return run
