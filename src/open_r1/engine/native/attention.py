"""Attention over paged keys and values, registered with transformers' attention interface as `NATIVE_ATTENTION`.

Prompts use the packed attention of training, which also stores their keys and values. A decoding step has one token per
row: a custom operation stores its key and value, and attends to everything that the row has in the cache. It is a
Triton kernel on CUDA and plain torch elsewhere, which is also its specification.

Each attention module has its part of the cache as `kv_pages (pages, 2, Hkv, page size, D)`, keys before values.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from open_r1.modeling.attention import packed_attention
from open_r1.modeling.layout import DocumentLayout

NATIVE_ATTENTION = "open_r1_native"


class PromptStorage(NamedTuple):
    """Where the keys and values of T packed prompt tokens are stored: `pages (T,)` and `offsets (T,)` in them."""

    pages: Tensor
    offsets: Tensor


class Rows(NamedTuple):
    """The B rows of a decoding step: `block_table (B, P)`, their pages, and `lengths (B,)`, the tokens in the cache
    before the step."""

    block_table: Tensor
    lengths: Tensor


def native_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    storage: PromptStorage | None = None,
    rows: Rows | None = None,
    layout: DocumentLayout | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention for `query (1, Hq, T, D)`, `key` and `value (1, Hkv, T, D)`; returns `(1, T, Hq, D)`.

    With `storage` (and `layout`), T tokens of packed prompts; with `rows`, one token for each of T rows; with neither,
    plain packed attention.
    """
    if rows is not None:
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        limits = softcap or 0.0, sliding_window or 0
        out = paged_attention(q, k, v, module.kv_pages, *rows, scale, *limits, s_aux)  # type: ignore[arg-type]
        return out[None].to(value.dtype), None
    if storage is not None:
        pages: Any = module.kv_pages
        for half, x in enumerate((key, value)):
            pages[:, half].transpose(1, 2)[storage.pages, storage.offsets] = x[0].transpose(0, 1).to(pages.dtype)
    scores: dict[str, Any] = {"sliding_window": sliding_window, "softcap": softcap, "s_aux": s_aux}
    return packed_attention(module, query, key, value, attention_mask, layout, scaling, **scores, **kwargs)


@torch.library.custom_op("open_r1::paged_attention", mutates_args=("kv_pages",))
def paged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kv_pages: Tensor,
    block_table: Tensor,
    lengths: Tensor,
    scale: float,
    softcap: float,
    window: int,
    sinks: Tensor | None,
) -> Tensor:
    """Appends each row's `k` and `v (B, Hkv, D)` to the cache and attends to all of it: softmax over
    cap tanh(scale q k / cap) of the last `window` keys, with one more term exp(sink) in the denominator.

    `q (B, Hq, D)`; `softcap` and `window` are off at 0; `sinks (Hq,)`. Returns `(B, Hq, D)` in the cache's dtype.
    """
    if q.is_cuda:
        from open_r1.engine.native.kernels.attention import paged_attention_triton

        return paged_attention_triton(q, k, v, kv_pages, block_table, lengths, scale, softcap, window, sinks)
    return paged_attention_torch(q, k, v, kv_pages, block_table, lengths, scale, softcap, window, sinks)


@paged_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, kv_pages: Tensor, *rest: Any) -> Tensor:
    return q.new_empty(q.shape, dtype=kv_pages.dtype)


def paged_attention_torch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kv_pages: Tensor,
    block_table: Tensor,
    lengths: Tensor,
    scale: float,
    softcap: float,
    window: int,
    sinks: Tensor | None,
) -> Tensor:
    """`paged_attention` in plain operations, in float32."""
    rows, size = torch.arange(len(q), device=q.device), kv_pages.shape[3]
    last = lengths.long()
    table = block_table[:, : int(last.max()) // size + 1].long()
    for half, x in enumerate((k, v)):
        kv_pages[table[rows, last // size], half, :, last % size] = x.to(kv_pages.dtype)
    # (B, P, 2, Hkv, size, D) -> (2, B, Hkv, P * size, D)
    keys, values = kv_pages[table].permute(2, 0, 3, 1, 4, 5).flatten(3, 4).float()
    grouped = q.to(kv_pages.dtype).float().unflatten(1, (keys.shape[1], -1))
    scores = torch.einsum("bhgd,bhnd->bhgn", grouped, keys) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    position, end = torch.arange(keys.shape[2], device=q.device), last[:, None]
    visible = (position <= end) & ((position > end - window) if window else (position >= 0))
    scores = scores.masked_fill(~visible[:, None, None], -torch.inf)
    if sinks is not None:
        sink = sinks.float().view(1, keys.shape[1], -1, 1).expand(*scores.shape[:3], 1)
        weights = torch.cat([scores, sink], -1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    # A reused page may hold anything.
    values = values.masked_fill(~visible[:, None, :, None], 0)
    return torch.einsum("bhgn,bhnd->bhgd", weights, values).flatten(1, 2).to(kv_pages.dtype)


AttentionInterface.register(NATIVE_ATTENTION, native_attention)
AttentionMaskInterface.register(NATIVE_ATTENTION, sdpa_mask)
