"""How much memory a process has taken, and what to change when there was too little."""

import resource
import sys

import torch

from open_r1.configs import GRPOConfig, TrainConfig
from open_r1.errors import first_line


def peak_gib(device: torch.device) -> float:
    """The most that tensors held on a CUDA device, or elsewhere the most that the process held, so far, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def out_of_memory(error: torch.OutOfMemoryError, args: TrainConfig, step: int, pack_tokens: int) -> str:
    """A sentence for a step that ran out of memory, whose largest pack had `pack_tokens` tokens in this process."""
    budget = args.max_tokens_per_microbatch
    longest = "max_completion_length" if isinstance(args, GRPOConfig) else "max_length"
    shorter = "lower max_tokens_per_microbatch" if pack_tokens <= budget else f"lower {longest}"
    unused = {
        "set gradient_checkpointing to true": args.gradient_checkpointing,
        "set activation_offloading to true": args.activation_offloading,
        "set mlp_chunk_tokens to 4096": args.mlp_chunk_tokens is not None,
        "set optim to adamw_8bit": "8bit" in str(args.optim),
        "raise sequence_parallel_size on several GPUs": args.sequence_parallel_size > 1,
    }
    remedies = [shorter, *(remedy for remedy, used in unused.items() if not used)]
    return (
        f"out of GPU memory at step {step}, with {pack_tokens:,} tokens in a pack a process (max_tokens_per_microbatch "
        f"is {budget}; {first_line(error)}): {', or '.join(remedies)}. docs/long-contexts.md says what each saves; the "
        "same command continues from the last checkpoint."
    )
