"""Finds out before the first step, instead of after the last, whether a model cannot be saved."""

import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from open_r1.errors import UserError

logger = logging.getLogger(__name__)


def check_saveable(
    name: str, config: PretrainedConfig, generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Saves everything except the weights of model `name`, into a temporary folder.

    Many models on the hub have sampling options together with `do_sample: false`, which transformers refuses to save.
    Sets `do_sample: true` for them, with a warning. Raises `UserError` for everything else that cannot be saved.
    """
    if generation is not None:
        _mend_sampling(name, generation)
    with TemporaryDirectory() as folder:
        for file, part in (
            ("generation_config.json", generation),
            ("config.json", config),
            ("the tokenizer", tokenizer),
        ):
            if part is None:
                continue
            try:
                part.save_pretrained(folder)
            except Exception as error:  # of any kind: otherwise it would be raised after the training
                reason = " ".join(str(error).split())
                raise UserError(
                    f"model_name_or_path: {file} of {name} can be read but not saved again ({reason}): fix it in a "
                    "local copy of the model, and give that folder."
                ) from error


def save_weights_alone(model: nn.Module, state_dict: dict[str, Tensor] | None, path: Path) -> None:
    """Writes the weights (of a LoRA model: the trained ones) as safetensors, and nothing else, which might fail."""
    if state_dict is None:
        adapters = hasattr(model, "peft_config")
        state_dict = {name: p for name, p in model.named_parameters() if p.requires_grad or not adapters}
    with torch.no_grad():
        save_file({name: tensor.contiguous() for name, tensor in state_dict.items()}, path, metadata={"format": "pt"})


def _mend_sampling(name: str, generation: GenerationConfig) -> None:
    if generation.do_sample is True or (problem := _refusal(generation)) is None:
        return
    generation.do_sample = True
    if _refusal(generation) is not None:
        generation.do_sample = False  # there is more to it
        return
    options = ", ".join(re.findall(r"^- `(\w+)`", problem, re.MULTILINE)) or "sampling options"
    logger.warning(
        "generation_config.json of %s has %s with do_sample false, which cannot be saved. It is saved with do_sample "
        "true.",
        name,
        options,
    )


def _refusal(generation: GenerationConfig) -> str | None:
    try:
        generation.validate(strict=True)
    except ValueError as error:
        return str(error)
    return None
