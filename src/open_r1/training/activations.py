"""Decides, when training begins, what checkpointed layers store for the backward pass, and where."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from open_r1.configs import TrainConfig
from open_r1.internals.transformers import attention_name
from open_r1.modeling import flash
from open_r1.modeling.attention import ATTENTION
from open_r1.modeling.offloading import offload_checkpoints


def activation_callbacks(model: nn.Module, args: TrainConfig) -> list[TrainerCallback]:
    """With `activation_offloading`, the inputs of layers are moved to the CPU. Otherwise the outputs of flash-attn-4
    are stored too, because they take the longest to recompute."""
    if args.activation_offloading:
        return [_ChangeCheckpoints(offload_checkpoints)]
    weights: Any = model.dtype
    dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else weights
    uses_flash = attention_name(model) == ATTENTION and any(
        flash.is_used(sizes, args.device.type, dtype) for sizes in flash.head_sizes(model)
    )
    return [_ChangeCheckpoints(flash.keep_attention_of)] if uses_flash else []


class _ChangeCheckpoints(TrainerCallback):
    """Calls `change` with the model when training begins, after `gradient_checkpointing` was turned on."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        self.change = change

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.change(model)
