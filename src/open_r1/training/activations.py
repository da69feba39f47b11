"""Decides, when training begins, what checkpointed layers store for the backward pass, and where."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from open_r1.configs import TrainConfig
from open_r1.internals.transformers import attention_name
from open_r1.modeling import flash
from open_r1.modeling.attention import ATTENTION, SDPA_ATTENTION
from open_r1.modeling.compiling import checkpoint_in_graphs
from open_r1.modeling.offloading import offload_checkpoints
from open_r1.training.backends import splits_weights


def activation_callbacks(model: nn.Module, args: TrainConfig) -> list[TrainerCallback]:
    """With `activation_offloading`, the inputs of layers are moved to the CPU. Otherwise the results of attention
    kernels are stored too, because they take the longest to recompute, and compiled layers also store some products."""
    if args.activation_offloading:
        return [_ChangeCheckpoints([offload_checkpoints])]
    weights: Any = model.dtype
    dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else weights
    attention = attention_name(model)
    uses_flash = attention == ATTENTION and any(
        flash.is_used(sizes, args.device.type, dtype) for sizes in flash.head_sizes(model)
    )
    uses_varlen = attention != SDPA_ATTENTION and args.device.type == "cuda" and dtype in flash.HALF
    changes: list[Callable[[Any], None]] = []
    if args.torch_compile and (uses_flash or uses_varlen) and layers_are_graphs(args, splits_weights(args)):
        changes.append(checkpoint_in_graphs)
    if uses_flash:
        changes.append(flash.keep_attention_of)
    return [_ChangeCheckpoints(changes)] if changes else []


def layers_are_graphs(args: TrainConfig, sharded: bool) -> bool:
    """Whether each compiled layer is one graph with these options. Gathering weights (`sharded`), exchanging tokens and
    splitting MLPs break it into several."""
    return args.sequence_parallel_size == 1 and args.mlp_chunk_tokens is None and not sharded


class _ChangeCheckpoints(TrainerCallback):
    """Calls `changes` with the model when training begins, after `gradient_checkpointing` was turned on."""

    def __init__(self, changes: Sequence[Callable[[Any], None]]) -> None:
        self.changes = changes

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        for change in self.changes:
            change(model)
