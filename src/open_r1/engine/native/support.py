"""What the native engine cannot decode with."""

from transformers import PretrainedConfig

from open_r1.errors import UserError
from open_r1.modeling.attention import check_attention_supported

HOST_ROPE = ("dynamic", "longrope")
"""Rotary embeddings that look at the positions on the host."""


def why_unsupported(config: PretrainedConfig) -> str | None:
    """Why a model cannot run on the native engine, in a few words; None if it can."""
    try:
        check_attention_supported(config)
    except UserError:
        return "its attention is none that packs can be computed with"
    text = config.get_text_config()
    if any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return "it has experts, whose choice cannot be part of a CUDA graph"
    if kinds := {kind for kind in _rope_types(text) if any(word in kind for word in HOST_ROPE)}:
        return f"its rotary embeddings ({', '.join(sorted(kinds))}) look at positions on the host"
    return None


def check_supported(config: PretrainedConfig) -> None:
    """Raises UserError, in one line, for a model that cannot run on the native engine."""
    if reason := why_unsupported(config):
        raise UserError(
            f"engine is native, which cannot decode with {config.model_type}: {reason}. Use vLLM or the transformers "
            "engine."
        )


def _rope_types(config: PretrainedConfig) -> list[str]:
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [p for p in parameters.values() if isinstance(p, dict)]
    return [str(p.get("rope_type", "default")) for p in (nested or [parameters])]
