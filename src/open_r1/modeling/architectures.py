"""Decides from the configuration, before weights are read, whether packed training is exact for an architecture.

`scripts/sweep_models.py` compares these decisions with every architecture of transformers.
"""

import copy
import functools
import re
import sys
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PretrainedConfig

from open_r1.errors import UserError, one_line
from open_r1.internals.transformers import without_deepspeed_config
from open_r1.modeling.mixers import mixers
from open_r1.modeling.rope import length_rule

LAYER_TYPES = {
    *("full_attention", "sliding_attention", "chunked_attention", "linear_attention", "conv", "hybrid"),
    *("mamba", "moe", "mlp", "recurrent", "attention"),
}
CAUSAL_ANYWAY = ("gpt_neox",)
"""Types that are causal, whatever their `is_decoder` says."""
REPLACED = "its attention cannot be replaced, so documents of a pack would see each other"
REFUSED = {
    "blt": "it computes over patches of bytes, which could span two documents",
    "doge": "its attention mask depends on what it reads",
    "git": REPLACED,
    "modernbert-decoder": "its head is more than one matrix",
    "moshi": "its cache drops keys that its attention would see without a cache",
    "recurrent_gemma": "padding reaches its recurrent states, and transformers does not expose its cache",
    "zaya": "its attention convolves queries and keys, which would reach the next document",
}
"""Architectures whose code looks trainable in packs, but is not."""

MASK_WINDOWS = ("phimoe",)
"""Types whose attention does not get its window as an argument. Packs are exact only within one window."""


def check_supported(config: PretrainedConfig) -> None:
    """Raises UserError, with the model type and the remedy, if packed training would be inexact or fail."""
    if reason := why_unsupported(config):
        raise UserError(
            f"model_name_or_path: models of type {config.model_type} cannot be trained here: {reason}. docs/models.md "
            "lists the types that can, such as llama, qwen3, qwen3_5, gemma3, gpt_oss and mistral."
        )


def why_unsupported(config: PretrainedConfig) -> str | None:
    """Why a model does not support packs, in a few words. None if it does."""
    if quantization := getattr(config, "quantization_config", None):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization.quant_method
        name = str(getattr(method, "value", method))
        return f"its weights are quantized ({name}), and training needs the checkpoint in bfloat16 or float32"
    if getattr(config, "is_encoder_decoder", False):
        return "it has an encoder and a decoder"
    try:
        text = config.get_text_config()
    except ValueError:  # MusicGen, RAG
        return "it has more than one text model"
    if getattr(text, "is_decoder", True) is False and text.model_type not in CAUSAL_ANYWAY:
        return "it reads in both directions"
    for kind in (config.model_type, text.model_type):
        if kind in REFUSED:
            return REFUSED[kind]
    if text.model_type in MASK_WINDOWS and (text.sliding_window or 2**31) < text.max_position_embeddings:
        return "its attention gets its window only from masks, which packs do not use"
    if unknown := sorted(set(getattr(text, "layer_types", None) or []) - LAYER_TYPES):
        return f"it has layers of type {', '.join(unknown)}, which packed training does not compute exactly"
    if getattr(config, "auto_map", None) and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None  # the code of its authors: seen only when it runs, by the check of the loaded model
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "transformers has no causal language model for it"
    if _model_class(config).config_class not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "transformers could not load the saved checkpoint of its text"
    return _why_unsupported_code(_model_class(config))


def _model_class(config: PretrainedConfig) -> Any:
    kinds: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]  # type: ignore[index]
    return kinds[0] if isinstance(kinds, tuple) else kinds


@functools.cache
def _why_unsupported_code(kind: Any) -> str | None:
    modeling = sys.modules[kind.__module__]
    if hasattr(modeling, "ALL_ATTENTION_FUNCTIONS"):
        return None
    if any("Mixer" in name for name in vars(modeling)):
        return None
    return REPLACED


def skeleton(config: PretrainedConfig, trust_remote_code: bool = False) -> Any:
    """The model without weights. Its configuration is a copy, so that changes do not affect other models. Raises
    UserError if it needs packages that are not installed (Gemma 3n: pillow and timm)."""
    try:
        with without_deepspeed_config(), torch.device("meta"):
            return AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=trust_remote_code)
    except ImportError as error:
        missing = " ".join(dict.fromkeys(re.findall(r"pip install ([\w.-]+\w)", str(error))))
        raise UserError(
            f"models of type {config.model_type} need other packages: "
            f"{f'pip install {missing}' if missing else one_line(error)}."
        ) from error


def can_share_prompts(model: torch.nn.Module) -> bool:
    """Whether completions may share the computation of their prompt, which attention allows but the state of a mixer
    does not."""
    return not mixers(model)


def check_sequence_parallel(config: PretrainedConfig, size: int, trust_remote_code: bool = False) -> None:
    """Raises UserError if the tokens of a pack cannot be split over `size` processes with this model."""
    if size == 1:
        return
    heads: Any = getattr(config.get_text_config(), "num_attention_heads", None)
    if reason := _why_not_in_slices(config, heads, trust_remote_code):
        raise UserError(
            f"sequence_parallel_size is {size}, but models of type {config.model_type} do not support it: {reason}. "
            "Set it to 1."
        )
    if heads % size:
        possible = [str(n) for n in range(1, heads + 1) if heads % n == 0]
        raise UserError(
            f"sequence_parallel_size is {size}, which does not divide the model's {heads} attention heads: set it to "
            f"one of {', '.join(possible)}."
        )


def _why_not_in_slices(config: PretrainedConfig, heads: Any, trust_remote_code: bool) -> str | None:
    if rule := length_rule(config):
        return f"their rotary embeddings ({rule.kind}) depend on the length of a document"
    if not isinstance(heads, int):
        return "their layers do not all have the same attention heads"
    if stateful := {type(module).__name__ for module in mixers(skeleton(config, trust_remote_code))}:
        return f"they have layers that pass a state from token to token ({', '.join(sorted(stateful))})"
    return None
