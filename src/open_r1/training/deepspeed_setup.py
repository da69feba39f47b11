"""Prepares DeepSpeed before a training process reads its options. Does not import torch."""

import os
from importlib.util import find_spec

from open_r1.errors import UserError
from open_r1.installing import install_command


def deepspeed_requested() -> bool:
    """Whether the launcher requested DeepSpeed."""
    flag = os.environ.get("ACCELERATE_USE_DEEPSPEED")
    if flag is None:
        return False
    from transformers.utils import strtobool

    return bool(strtobool(flag))


def prepare_deepspeed() -> None:
    """Entry scripts call this first: `TrainingArguments` start the process group, which decides how DeepSpeed reduces.

    Does nothing without DeepSpeed. Raises UserError if DeepSpeed was requested but is not installed.
    """
    if not deepspeed_requested():
        return
    if find_spec("deepspeed") is None:
        raise UserError(f"DeepSpeed was requested but is not installed: {install_command('deepspeed')}.")
    from open_r1.internals.deepspeed import disable_shared_memory_reduction

    disable_shared_memory_reduction()
