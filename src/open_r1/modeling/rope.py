"""Rotary embeddings whose frequencies depend on the longest sequence of a forward pass.

LongRoPE (arXiv 2402.13753; Phi-3.5, Phi-4) has one set of factors for sequences within the original context and another
for longer ones. In dynamic NTK scaling, the base grows with the length of sequences beyond the context. All documents
of a pack must therefore have the same frequencies: be on the same side of the original context and, beyond it with NTK,
have the same length.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PretrainedConfig

LENGTH_DEPENDENT = ("longrope", "dynamic")


@dataclass(frozen=True)
class LengthRule:
    """The `kind` of rotary embeddings whose frequencies change beyond `original` tokens."""

    kind: str
    original: int

    def side(self, length: int) -> Hashable:
        """A key that is equal for sequences that may share a pack."""
        if length <= self.original:
            return 0
        return length if self.kind == "dynamic" else 1


def length_rule(config: PretrainedConfig) -> LengthRule | None:
    """How the frequencies depend on length; None if they do not."""
    text = config.get_text_config()
    for parameters in rope_parameters(text):
        kind = str(parameters.get("rope_type", "default"))
        if kind == "longrope":
            return LengthRule(kind, int(parameters["original_max_position_embeddings"]))
        if kind == "dynamic":
            return LengthRule(kind, int(text.max_position_embeddings))
    return None


def rope_parameters(text_config: Any) -> list[dict[str, Any]]:
    """The parameters of rotary embeddings, for each type of layer that has its own."""
    parameters = getattr(text_config, "rope_parameters", None) or {}
    return [p for p in parameters.values() if isinstance(p, dict)] or [parameters]


def forget_lengths(model: nn.Module) -> None:
    """Resets dynamic frequencies, because transformers keeps those of the longest sequence so far."""
    for module in model.modules():
        if getattr(module, "rope_type", None) == "dynamic":
            original: Any = module.original_inv_freq
            module.register_buffer("inv_freq", original.to(module.inv_freq.device), persistent=False)  # type: ignore
            module.max_seq_len_cached = module.original_max_seq_len
