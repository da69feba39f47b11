"""Backends for several processes: DDP, DeepSpeed's ZeRO-1 to 3, or PyTorch's FSDP2, as configured in accelerate.

accelerate falls back silently: FSDP on a CPU becomes DDP, and several CPU processes become one. Here FSDP2 works on a
CPU (over gloo), and a run is refused if its backend is not the requested one.
"""

import os
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType
from torch import nn
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import strtobool

from open_r1.errors import UserError
from open_r1.training.deepspeed_setup import deepspeed_requested

PROCESSES = "OPEN_R1_PROCESSES"
"""Environment variable of launchers: the number of processes that train together."""

Backend = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"]
DESCRIPTIONS: dict[Backend, str] = {
    "single": "one process",
    "ddp": "DDP",
    "zero1": "DeepSpeed ZeRO-1",
    "zero2": "DeepSpeed ZeRO-2",
    "zero3": "DeepSpeed ZeRO-3",
    "fsdp2": "FSDP2",
}


def active_backend(accelerator: Accelerator) -> Backend:
    """The backend that `accelerator` really uses. Raises UserError if it cannot train here."""
    state = accelerator.state
    if state.distributed_type == DistributedType.DEEPSPEED:
        stage = state.deepspeed_plugin.zero_stage
        if stage not in (1, 2, 3):
            raise UserError(f"DeepSpeed's zero_stage is {stage}: expected 1, 2 or 3 (or DDP instead of stage 0).")
        return ("zero1", "zero2", "zero3")[stage - 1]
    if state.distributed_type == DistributedType.FSDP:
        if state.fsdp_plugin.fsdp_version != 2:
            raise UserError("fsdp_version is 1: set it to 2, as recipes/accelerate_configs/fsdp.yaml does.")
        return "fsdp2"
    return "ddp" if accelerator.num_processes > 1 else "single"


def describe_training(accelerator: Accelerator, sequence_parallel_size: int = 1) -> str:
    """Describes the run, from the process group and the plugins themselves."""
    count, device = accelerator.num_processes, accelerator.device.type
    processes = f"{count} process{'es' if count > 1 else ''} on {device}"
    if count > 1:
        processes += f" ({dist.get_backend()})"
    backend = active_backend(accelerator)
    split = "weights whole on each" if backend in ("single", "ddp") else DESCRIPTIONS[backend]
    shared = f", packs shared by {sequence_parallel_size}" if sequence_parallel_size > 1 else ""
    return f"Training in {processes}, {split}{shared}."


def family(backend: Backend) -> str:
    """Backends of the same family can read each other's checkpoints."""
    return "plain" if backend in ("single", "ddp") else backend


def requested_backend(processes: int, distributed_type: str) -> dict[str, str]:
    """Environment variables with which a launcher tells `check_backend` what to expect; `distributed_type` is as in
    accelerate's files. accelerate's own launcher sets some of them, but not if it starts a single process instead."""
    variables = {PROCESSES: str(processes)}
    if distributed_type in ("FSDP", "DEEPSPEED"):
        variables[f"ACCELERATE_USE_{distributed_type}"] = "true"
    return variables


def check_backend(accelerator: Accelerator) -> Backend:
    """The active backend. Raises UserError if it is not the one that the environment (torchrun, accelerate)
    requests."""
    backend = active_backend(accelerator)
    found = f"{DESCRIPTIONS[backend]} on {accelerator.device.type}"
    wanted = int(os.environ.get(PROCESSES) or os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != wanted:
        raise UserError(
            f"{wanted} processes were requested, but accelerate started each of them as a separate run ({found}): "
            f"remove use_cpu from its configuration, or launch with torchrun --nproc_per_node {wanted}."
        )
    for name, wants in (("FSDP", asks_fsdp()), ("DeepSpeed", deepspeed_requested())):
        if wants and not backend.startswith("fsdp" if name == "FSDP" else "zero"):
            raise UserError(
                f"{name} was requested, but this is {found}: start at least two processes, with accelerate launch on "
                "GPUs or torchrun --nproc_per_node 2 on a CPU (accelerate launch --cpu starts only one), or omit it."
            )
    return backend


def splits_weights(args: Any) -> bool:
    """Whether each process of a run with these `TrainingArguments` has only a part of the weights."""
    return is_deepspeed_zero3_enabled() or asks_fsdp(args)


def allow_fsdp_on_cpu() -> None:
    """Makes the next `Accelerator` use FSDP on a CPU too, where accelerate would use DDP instead."""
    state = PartialState()
    if state.distributed_type == DistributedType.MULTI_CPU and asks_fsdp():
        state.distributed_type = DistributedType.MULTI_GPU  # which it turns into FSDP; the device stays the CPU


def reduce_in_float32(accelerator: Accelerator) -> None:
    """FSDP2 in half precision: sums gradients in float32, and does not cast the model's outputs (logprobs)."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
    if dtype is not None:
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=dtype, reduce_dtype=torch.float32, output_dtype=None, cast_forward_inputs=False
        )


PREFETCH = 50_000_000
"""Elements that DeepSpeed prefetches by default."""


def fetch_by_layer(model: nn.Module, accelerator: Accelerator) -> None:
    """Prepares `model` for DeepSpeed: ZeRO-3 gathers the weights of a decoder layer at once and prefetches the next
    layer, like FSDP2, instead of gathering every matrix and norm separately.

    Each fetch runs Python code in the forward pass, in its recomputation and in the backward pass, and a layer has
    thirteen modules. A partly trained model (LoRA) is not changed: DeepSpeed collects the gradients of a whole layer
    when the gradient of its input is ready, and then the input of the first layer has none.
    """
    from deepspeed.utils import set_z3_leaf_module

    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers or len({p.requires_grad for p in model.parameters()}) > 1:
        return
    for layer in layers:
        set_z3_leaf_module(layer, True)
        if next(layer.parameters()).requires_grad:
            layer.register_forward_pre_hook(_check_input_has_gradient, with_kwargs=True)
    largest = max(sum(getattr(p, "ds_numel", p.numel()) for p in layer.parameters()) for layer in layers)
    options = accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"]
    options.setdefault("stage3_prefetch_bucket_size", max(largest, PREFETCH))


def _check_input_has_gradient(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Without this, DeepSpeed would collect the gradients of the layer before they are computed, as zeros."""
    inputs = (*args, *kwargs.values())
    if torch.is_grad_enabled() and not any(isinstance(x, torch.Tensor) and x.requires_grad for x in inputs):
        raise RuntimeError(
            f"{type(layer).__name__} got no input that requires a gradient, but ZeRO-3 needs one for each layer."
        )


def prepare_frozen(model: nn.Module, accelerator: Accelerator, backend: Backend) -> nn.Module:
    """A model that is only evaluated, not trained. It is sharded if the policy is."""
    model.requires_grad_(False).eval()
    if backend == "fsdp2":
        from accelerate.utils.fsdp_utils import fsdp2_prepare_model

        return fsdp2_prepare_model(accelerator, model)
    if backend == "zero3":
        import deepspeed

        fetch_by_layer(model, accelerator)
        config = {k: v for k, v in accelerator.state.deepspeed_plugin.deepspeed_config.items() if k != "optimizer"}
        engine = deepspeed.initialize(model=model, config=config)[0]
        engine.eval()
        return engine
    return model.to(accelerator.device)


def asks_fsdp(args: Any = None) -> bool:
    """Whether the launcher, or these `TrainingArguments`, ask for FSDP."""
    return bool(strtobool(os.environ.get("ACCELERATE_USE_FSDP", "false")) or getattr(args, "fsdp", None))
