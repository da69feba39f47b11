"""The arguments that `transformers.Trainer` gets. It sees one batch per optimizer step."""

import copy

import torch
from transformers.trainer_utils import IntervalStrategy

from open_r1.configs import GRPOConfig, TrainConfig
from open_r1.internals.transformers import limit_to_one_gpu, set_device


def one_batch_per_step(args: TrainConfig) -> TrainConfig:
    """A copy of `args` in which a batch is everything that one optimizer step reads on one rank."""
    merged = copy.copy(args)
    merged.per_device_train_batch_size = args.per_device_train_batch_size * args.gradient_accumulation_steps
    merged.gradient_accumulation_steps = 1
    if isinstance(merged, GRPOConfig) and merged.steps_per_generation is not None:
        merged.steps_per_generation //= args.gradient_accumulation_steps
    merged.use_cache = True
    merged.torch_compile = False  # `load_policy` does this if requested
    merged.logging_strategy = IntervalStrategy.STEPS  # every step, so that a resumed run logs the same
    merged.logging_steps = 1
    merged.logging_nan_inf_filter &= merged.fp16  # it waits for the GPU
    if merged.device.type == "cpu":
        set_device(merged, torch.device("cpu"))  # also on rank 1, where it is "cpu:1"
    limit_to_one_gpu(merged)
    return merged
