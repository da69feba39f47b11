"""Loads configurations and causal language models. Errors become one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel

from open_r1.errors import UserError, first_line
from open_r1.files import check_no_lfs_pointers
from open_r1.hub import reading_hub
from open_r1.modeling.checkpoint import Checkpoint

CODE_ERRORS = (AttributeError, KeyError, TypeError)
"""Errors that the code of a model raises for an unexpected configuration."""
LOADING_ERRORS = (OSError, ValueError, ImportError, RuntimeError, HFValidationError, SafetensorError, *CODE_ERRORS)


def context_length(config: PretrainedConfig) -> int | None:
    """Maximum number of prompt plus completion tokens. None if the configuration does not define it."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def load_config(checkpoint: Checkpoint) -> PretrainedConfig:
    """The model's configuration. Raises UserError."""
    with explain_loading_errors(checkpoint):
        return AutoConfig.from_pretrained(checkpoint.path, **checkpoint.hub_options)


def load_generation_config(checkpoint: Checkpoint) -> GenerationConfig | None:
    """The model's generation config. None if the checkpoint has none."""
    try:
        return GenerationConfig.from_pretrained(checkpoint.path, revision=checkpoint.revision or "main")
    except OSError:
        return None


def load_causal_lm(checkpoint: Checkpoint, dtype: torch.dtype | str, **options: Any) -> PreTrainedModel:
    """The model; `options` go to `from_pretrained`. Raises UserError, also if the checkpoint lacks tensors."""
    with explain_loading_errors(checkpoint):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint.path, dtype=dtype, output_loading_info=True, **checkpoint.hub_options, **options
        )
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{checkpoint.option} is {checkpoint.name!r}: the weights lack {len(missing)} tensors of the model, the "
            f"first is {missing[0]}, and they would be random: download the whole checkpoint."
        )
    return model


@contextmanager
def explain_loading_errors(checkpoint: Checkpoint) -> Iterator[None]:
    """Turns errors of the libraries inside the context into a UserError with the option and the reason."""
    check_no_lfs_pointers(Path(checkpoint.path), checkpoint.option)
    try:
        with reading_hub(checkpoint.name, checkpoint.option):
            yield
    except LOADING_ERRORS as error:
        reason = first_line(error) if type(error) not in CODE_ERRORS else f"{type(error).__name__}: {first_line(error)}"
        raise UserError(
            f"{checkpoint.option} is {checkpoint.name!r}, which cannot be loaded as a causal language model: {reason}. "
            "Give a hub id, or a folder with config.json and model.safetensors."
        ) from error
