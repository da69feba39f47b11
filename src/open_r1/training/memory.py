"""Measures the memory of a process, says what to change if it runs out, and speeds up Python's garbage collector."""

import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from open_r1.configs import GRPOConfig, TrainConfig
from open_r1.errors import first_line
from open_r1.training.backends import asks_fsdp
from open_r1.training.optimizers import optimizer_name


def peak_gib(device: torch.device) -> float:
    """Peak memory so far in GiB: of tensors on a CUDA device, or of the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


@contextmanager
def objects_frozen() -> Iterator[None]:
    """Inside, Python's garbage collector skips the objects that exist now. It would otherwise look at all of them every
    few steps: half a million after the imports, which takes 0.4 s."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def out_of_memory(error: torch.OutOfMemoryError, args: TrainConfig, step: int, pack_tokens: int) -> str:
    """A sentence for a run that ran out of memory at `step`, whose largest pack had `pack_tokens` tokens in this
    process (0: there was none yet)."""
    where = f"at step {step}, with packs of up to {pack_tokens:,} tokens per process" if pack_tokens else "at the start"
    reason = ". ".join(first_line(error).split(". ")[:2])  # the rest is about the allocator
    return (
        f"out of GPU memory {where} ({reason}): {', or '.join(_remedies(args, pack_tokens))}. "
        "docs/long-contexts.md lists what each saves. Run the same command to continue from the last checkpoint."
    )


def _remedies(args: TrainConfig, pack_tokens: int) -> list[str]:
    """Remedies that are not in use yet, the cheapest first."""
    remedies = []
    if pack_tokens > args.max_tokens_per_microbatch:
        remedies.append("lower max_completion_length" if isinstance(args, GRPOConfig) else "lower max_length")
    elif pack_tokens:
        remedies.append(f"lower max_tokens_per_microbatch (now {args.max_tokens_per_microbatch})")
    if isinstance(args, GRPOConfig) and not args.uses_vllm_servers:
        remedies.append(f"lower vllm_gpu_memory_utilization (now {args.vllm_gpu_memory_utilization:g})")
    options: dict[str, bool] = {
        "gradient_checkpointing true": args.gradient_checkpointing,
        "mlp_chunk_tokens 4096": args.mlp_chunk_tokens is not None,
        "activation_offloading true": args.activation_offloading,
        f"optim {'adamw_torch_8bit' if asks_fsdp(args) else 'adamw_8bit'}": optimizer_name(args).endswith("8bit"),
        "use_peft true": False,
    }
    missing = [option for option, used in options.items() if not used]
    return [*remedies, f"set {', '.join(missing)}", "use more GPUs (--accelerator fsdp, sequence_parallel_size)"]
