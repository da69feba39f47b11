"""Finds out from the configuration, before weights are read, whether the native engine can run a model."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, PretrainedConfig
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from open_r1.errors import UserError, first_line
from open_r1.internals.transformers import takes_registered_attention
from open_r1.modeling.architectures import skeleton
from open_r1.modeling.architectures import why_unsupported as why_not_packed
from open_r1.modeling.rope import LENGTH_DEPENDENT, rope_parameters

RECORDED_ATTENTION = "open_r1_recorded"
TRACED = 3
"""Tokens that go through the model without weights."""


class Call(NamedTuple):
    """One call of the attention function: who called, with keys and values of which shape, and whether the call
    carried what was given to the model."""

    module: nn.Module
    keys: torch.Size
    values: torch.Size
    carried: bool


def why_unsupported(config: PretrainedConfig) -> str | None:
    """Why a model cannot run on the native engine, in a few words; None if it can."""
    if why_not_packed(config) is not None:
        return "its attention does not support packed sequences"
    text = config.get_text_config()
    if others := set(getattr(text, "layer_types", None) or []) - {"full_attention", "sliding_attention"}:
        return f"it has layers of type {', '.join(sorted(others))}"
    if any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return "it has experts, and the choice of experts cannot be part of a CUDA graph"
    rotary = [str(p.get("rope_type", "default")) for p in rope_parameters(text)]
    if kinds := {kind for kind in rotary if any(word in kind for word in LENGTH_DEPENDENT)}:
        return f"its rotary embeddings ({', '.join(sorted(kinds))}) read positions on the host"
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
    try:
        model = skeleton(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"transformers cannot build a model from its configuration ({type(error).__name__}: {first_line(error)})"
    decoder = getattr(model, model.base_model_prefix, None)
    attentions: list[Any] = [getattr(layer, "self_attn", None) for layer in getattr(decoder, "layers", ())]
    if not attentions or None in attentions:
        return "its layers are not built like Llama's"
    if not takes_registered_attention(model):
        return "its attention cannot be replaced"
    try:
        calls = _attention_calls(model, decoder)
    except (RuntimeError, NotImplementedError):  # the meta device has no values
        return "its code reads values on the host, which a CUDA graph cannot do"
    return _why_unsupported_calls(calls, attentions, config.get_text_config())


def _why_unsupported_calls(calls: list[Call], attentions: list[Any], text: Any) -> str | None:
    if [call.module for call in calls] != attentions:
        return "not every layer calls attention exactly once"
    if not all(call.carried for call in calls):
        return "its layers do not pass the positions of keys and values to attention"
    shapes = {call.keys for call in calls} | {call.values for call in calls}
    if len(shapes) > 1:
        return "its keys and values differ in size"
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if shapes != {(1, heads, TRACED, width)}:
        return "its keys do not have the size in its configuration"
    return None


def _attention_calls(model: Any, decoder: Any) -> list[Call]:
    """Every call of attention, in order, while a few tokens go through a model without weights."""
    calls: list[Call] = []

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, carried: Any = None, **_: Any
    ) -> tuple[Tensor, None]:
        calls.append(Call(module, key.shape, value.shape, carried is calls))
        return query.new_empty(*query.transpose(1, 2).shape[:3], value.shape[-1]), None

    AttentionInterface.register(RECORDED_ATTENTION, record)
    AttentionMaskInterface.register(RECORDED_ATTENTION, sdpa_mask)
    model.set_attn_implementation(RECORDED_ATTENTION)
    ids = torch.zeros(1, TRACED, dtype=torch.long, device="meta")
    mask = torch.zeros(1, 1, 1, 1, device="meta")
    try:
        with torch.no_grad():
            decoder(input_ids=ids, position_ids=ids, attention_mask=mask, use_cache=False, carried=calls)
    finally:
        AttentionInterface.register(RECORDED_ATTENTION, _no_attention)
    return calls


def _no_attention(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """Replaces the recording attention: a model that still calls it must not compute with uninitialized numbers."""
    raise RuntimeError(f"the attention of {type(module).__name__} only records calls, in a model without weights")
