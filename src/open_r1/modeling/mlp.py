"""The MLP of a decoder layer, computed one chunk of tokens at a time.

What an MLP keeps for the backward pass is several times as wide as the hidden state, and a layer that is recomputed
holds it for every token of a pack. MLPs look at each token alone, so the tokens can go through in chunks: a chunk is
recomputed when its gradient is due, and what it keeps is there for no longer (ALST, arXiv 2506.13996, section 3.1).
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from open_r1.errors import UserError


class ChunkedMLP(nn.Module):
    """An MLP that takes at most `chunk_tokens` tokens at once."""

    chunk_tokens: int

    @torch.compiler.disable
    def forward(self, hidden: Tensor) -> Tensor:
        """As the MLP's own, for `hidden (..., T, H)`."""
        if hidden.shape[-2] <= self.chunk_tokens:
            return super().forward(hidden)
        run: Any = super().forward
        if torch.is_grad_enabled():
            run = functools.partial(checkpoint, run, use_reentrant=False, preserve_rng_state=True)
        return torch.cat([run(chunk) for chunk in hidden.split(self.chunk_tokens, dim=-2)], dim=-2)


def chunk_mlps(model: PreTrainedModel, chunk_tokens: int) -> None:
    """Makes every MLP of `model` process `chunk_tokens` tokens at once. Experts are unchanged, because each sees only a
    part of the tokens. Raises UserError if there is no other MLP."""
    layers = model.get_decoder().layers  # type: ignore[operator, union-attr]
    places: list[Any] = [getattr(layer, name, None) for layer in layers for name in ("mlp", "feed_forward")]
    found = [place for place in places if _is_plain(place)]
    if not found:
        raise UserError(
            f"mlp_chunk_tokens is {chunk_tokens}, but models of type {model.config.model_type} have no MLP that all "
            "tokens go through: omit it."
        )
    for mlp in found:
        mlp.__class__ = _chunked(mlp.__class__)
        mlp.chunk_tokens = chunk_tokens


def unchunk_mlps(model: nn.Module) -> None:
    """Undoes `chunk_mlps`."""
    for module in model.modules():
        if isinstance(module, ChunkedMLP):
            module.__class__ = type(module).__bases__[1]


def _is_plain(module: Any) -> bool:
    """Whether all weights of a module are those of a few linear layers."""
    if not isinstance(module, nn.Module):
        return False
    linear = [child for child in module.children() if isinstance(child, nn.Linear)]
    return len(linear) in (2, 3) and sum(1 for _ in module.parameters()) == sum(
        1 for child in linear for _ in child.parameters()
    )


@functools.cache
def _chunked(kind: type) -> type:
    return type(kind.__name__, (ChunkedMLP, kind), {"__module__": kind.__module__})
