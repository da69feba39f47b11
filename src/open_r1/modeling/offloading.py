"""Activation checkpoints on the CPU: the input of a checkpointed layer is moved there until the backward pass."""

from typing import Any

from torch import nn
from torch.autograd.graph import save_on_cpu

from open_r1.internals.transformers import replace_checkpointing


def offload_checkpoints(model: nn.Module) -> None:
    """Makes the checkpointed layers of `model` store their inputs in CPU memory (pinned, if there is a GPU).

    Call it after `gradient_checkpointing_enable`. What a layer stores while it is recomputed stays on the GPU.
    """
    replace_checkpointing(model, _offloaded)


def _offloaded(checkpoint: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        with save_on_cpu(pin_memory=True):
            return checkpoint(*args, **kwargs)

    return run
