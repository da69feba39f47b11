"""The MLP of a decoder layer, computed one chunk of tokens at a time.

For the backward pass, an MLP stores several times as much per token as the hidden state, and a recomputed layer stores
it for all tokens of a pack. MLPs process each token independently, so they can run on one chunk of tokens at a time:
each chunk is recomputed in the backward pass, and its activations exist only until then (ALST, arXiv 2506.13996,
section 3.1).
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from open_r1.errors import UserError


class ChunkedMLP(nn.Module):
    """An MLP that processes at most `chunk_tokens` tokens at once."""

    chunk_tokens: int

    @torch.compiler.disable
    def forward(self, hidden: Tensor) -> Tensor:
        """As the MLP's own forward, for `hidden (..., T, H)`."""
        if hidden.shape[-2] <= self.chunk_tokens:
            return super().forward(hidden)
        run: Any = super().forward
        if torch.is_grad_enabled():
            run = functools.partial(checkpoint, run, use_reentrant=False, preserve_rng_state=True)
        return torch.cat([run(chunk) for chunk in hidden.split(self.chunk_tokens, dim=-2)], dim=-2)


def chunk_mlps(model: PreTrainedModel, chunk_tokens: int) -> None:
    """Makes every MLP of `model` process at most `chunk_tokens` tokens at once, except experts, which see only a part
    of the tokens. Raises `UserError` if there is no such MLP."""
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
