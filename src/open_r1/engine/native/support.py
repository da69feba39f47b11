"""Models that the native engine cannot run."""

from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig

from open_r1.errors import UserError
from open_r1.internals.transformers import takes_registered_attention
from open_r1.modeling.architectures import why_unsupported as why_not_packed
from open_r1.modeling.rope import LENGTH_DEPENDENT, rope_parameters

INCOMPATIBLE = ("diffllama", "granite_swa", "nemotron")
"""Types whose layers look like Llama's but whose logprobs differ (`scripts/sweep_models.py`)."""


def why_unsupported(config: PretrainedConfig) -> str | None:
    """Why a model cannot run on the native engine, in a few words; None if it can."""
    if why_not_packed(config) is not None:
        return "its attention is none that packs can be computed with"
    text = config.get_text_config()
    if text.model_type in INCOMPATIBLE:
        return "its layers do not call attention as Llama's do"
    if others := set(getattr(text, "layer_types", None) or []) - {"full_attention", "sliding_attention"}:
        return f"it has layers of type {', '.join(sorted(others))}"
    if getattr(text, "attn_logit_softcapping", None):
        return "its attention scores are softcapped"
    if any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return "it has experts, whose choice cannot be part of a CUDA graph"
    rotary = [str(p.get("rope_type", "default")) for p in rope_parameters(text)]
    if kinds := {kind for kind in rotary if any(word in kind for word in LENGTH_DEPENDENT)}:
        return f"its rotary embeddings ({', '.join(sorted(kinds))}) look at positions on the host"
    if getattr(text, "kv_lora_rank", None):
        return "its keys and values are compressed"
    return _why_unsupported_modules(config)


def check_supported(config: PretrainedConfig) -> None:
    """Raises UserError, in one line, for a model that cannot run on the native engine."""
    if reason := why_unsupported(config):
        raise UserError(
            f"engine is native, which cannot decode with {config.model_type}: {reason}. Use vLLM or the transformers "
            "engine."
        )


def _why_unsupported_modules(config: PretrainedConfig) -> str | None:
    """The engine swaps the attention function of `layers[i].self_attn`, and gives each a cache of one shape."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "transformers has no causal language model for it"
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        model = kind(config)
    layers = getattr(getattr(model, model.base_model_prefix, None), "layers", ())
    attentions: list[Any] = [getattr(layer, "self_attn", None) for layer in layers]
    if not attentions or None in attentions:
        return "its layers are not built like Llama's"
    if not takes_registered_attention(model):
        return "its attention cannot be replaced"
    widths = {attention.k_proj.weight.shape[0] for attention in attentions if hasattr(attention, "k_proj")}
    if len(widths) > 1:
        return "its layers have keys of different sizes"
    return None
