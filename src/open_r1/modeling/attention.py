"""Exact attention over packed documents: no document sees another, and padding costs nothing.

`packed_attention` is registered with transformers' attention interface as `ATTENTION`, which uses the fastest kernel
that fits, as `VARLEN_ATTENTION` without flash-attn-4, and as `SDPA_ATTENTION` without kernels for packed documents.

With a `layout` (training), it attends document by document: on CUDA in half precision with flash-attn-4 (`flash.py`) if
it is installed and supports the heads, else with PyTorch's `varlen_attn`; elsewhere with `scaled_dot_product_attention`
over documents batched by similar length. Without one (generation), it is transformers' own sdpa. Processes that share a
pack exchange heads for tokens around it (`sequence_parallel.py`). Of the kernels, only flash-attn-4 supports softcaps
and sinks; otherwise they are computed one rectangle of documents at a time (`explicit_attention`).
"""

import functools
import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from open_r1.modeling import flash
from open_r1.modeling.layout import DocumentLayout
from open_r1.modeling.sequence_parallel import SequenceGroup

ATTENTION = "open_r1"
VARLEN_ATTENTION = "open_r1_varlen"
SDPA_ATTENTION = "open_r1_sdpa"
TAKES_GQA = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""Since torch 2.12, `varlen_attn` must be told that there are fewer keys than queries; before, it detected this."""


@dataclass(frozen=True)
class ScoreRule:
    """What an architecture does to scores in addition to scaling.

    `window` and `chunk` are in tokens: a token attends to the last `window` tokens, including itself, or to those since
    the last multiple of `chunk`. A `softcap` c turns a score s into c tanh(s / c) (Gemma 2, arXiv 2408.00118, section
    2). `sinks (Hq,)` are scores of a key without a value (gpt-oss, arXiv 2508.10925, section 2.3).
    """

    window: int | None = None
    chunk: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def changes_scores(self) -> bool:
        return self.softcap is not None or self.sinks is not None

    def mask(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        """Which of `keys` tokens each of the last `queries` attends to, `(queries, keys)`. None for a plain causal mask
        of equally many queries and keys."""
        windowed = self.window is not None and self.window < keys
        chunked = self.chunk is not None and self.chunk < keys
        if queries == keys and not windowed and not chunked:
            return None
        key = torch.arange(keys, device=device)
        query = key[keys - queries :, None]
        seen = query >= key
        if self.window is not None:
            seen &= query - key < self.window
        if self.chunk is not None:
            seen &= query // self.chunk == key // self.chunk
        return seen


class _GatherKeys(torch.autograd.Function):
    """`x[index]` for `x (T, H, D)`. Its gradient sums, in float32, the gradients of all uses of a token."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.tokens = len(x)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (index,) = ctx.saved_tensors
        total = torch.zeros(ctx.tokens, *grad.shape[1:], dtype=torch.float32, device=grad.device)
        return total.index_add_(0, index, grad.float()).to(grad.dtype), None


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: DocumentLayout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    allow_varlen: bool = True,
    allow_flash: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention for `query (B, Hq, T, D)`, `key` and `value (B, Hkv, T, D)`; returns `(B, T, Hq, D)`.

    With a `layout` B is 1, attention is causal within each document, and `attention_mask` is not read. `s_aux (Hq,)`
    are sinks.
    """
    rule = ScoreRule(sliding_window, _chunk_size(module), softcap, s_aux)
    if layout is None and (documents := getattr(module, "documents", None)) is not None:
        layout = documents.layout  # some models pass no arguments on to attention (Phi-MoE, StableLM, Nemotron)
    if layout is None:
        return _plain(module, query, key, value, attention_mask, scaling, dropout, rule, kwargs), None
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if layout.group is None:
        out = _attend(q, k, v, layout, scaling, rule, allow_varlen, allow_flash)
    else:
        out = _attend_in_group(layout.group, q, k, v, layout, scaling, rule, allow_varlen, allow_flash)
    return out[None].to(value.dtype), None


@torch.compiler.disable
def _attend_in_group(
    group: SequenceGroup,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: DocumentLayout,
    scaling: float | None,
    rule: ScoreRule,
    *kernels: bool,
) -> Tensor:
    """As `_attend`, for this process's tokens of all heads. Heads travel in the dtype of `v`."""
    if rule.sinks is not None:
        rule = replace(rule, sinks=rule.sinks[group.slice_of(len(rule.sinks))])
    q, k, v = (group.heads(x.to(v.dtype)) for x in (q, k, v))
    return group.tokens(_attend(q, k, v, layout, scaling, rule, *kernels).to(v.dtype))


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: DocumentLayout,
    scaling: float | None,
    rule: ScoreRule,
    allow_varlen: bool,
    allow_flash: bool,
) -> Tensor:
    if allow_flash and rule.chunk is None and flash.fits(q, v):
        return _flash(q.to(v.dtype), k.to(v.dtype), v, layout, scaling, rule)
    if allow_varlen and use_varlen(q, v) and rule.chunk is None and not rule.changes_scores:
        return _varlen(q.to(v.dtype), k.to(v.dtype), v, layout, scaling, rule.window)
    return _by_document(q, k.to(q.dtype), v.to(q.dtype), layout, scaling, rule)


def _chunk_size(module: nn.Module) -> int | None:
    """Tokens per chunk, if the module's layer attends within chunks (Llama 4)."""
    config: Any = getattr(module, "config", None)
    if getattr(config, "attention_chunk_size", None) is None:
        return None  # before the layer's number is read: compiled layers that differ in it would not share their code
    kinds = getattr(config, "layer_types", None)
    if not kinds or kinds[module.layer_idx] != "chunked_attention":  # type: ignore[index]
        return None
    return config.attention_chunk_size


def _plain(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    rule: ScoreRule,
    kwargs: dict[str, Any],
) -> Tensor:
    """Attention over rows of equal length; `mask` covers windows, chunks and padding."""
    if rule.changes_scores:
        if mask is None:
            mask = ScoreRule().mask(query.shape[2], key.shape[2], query.device)
        return explicit_attention(query, key, value, mask, scaling, rule).transpose(1, 2).contiguous()
    if rule.window is not None:
        kwargs["sliding_window"] = rule.window
    return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, dropout=dropout, **kwargs)[0]


def use_varlen(q: Tensor, v: Tensor) -> bool:
    """Whether `varlen_attn` supports these tensors: CUDA, half precision, heads of at most 256."""
    return v.is_cuda and v.dtype in (torch.bfloat16, torch.float16) and max(q.shape[-1], v.shape[-1]) <= 256


def _flash(q: Tensor, k: Tensor, v: Tensor, layout: DocumentLayout, scaling: float | None, rule: ScoreRule) -> Tensor:
    if layout.key_index is not None:
        k, v = (_GatherKeys.apply(x, layout.key_index) for x in (k, v))
    return flash.flash_attention(
        q,
        k,
        v,
        layout.cu_seqlens_q,
        layout.cu_seqlens_k,
        layout.max_q,
        layout.max_k,
        scale=scaling,
        window=rule.window,
        softcap=rule.softcap,
        sinks=None if rule.sinks is None else rule.sinks.float(),
    )


def _varlen(
    q: Tensor, k: Tensor, v: Tensor, layout: DocumentLayout, scaling: float | None, window: int | None
) -> Tensor:
    options: dict[str, Any] = {"scale": scaling, "window_size": (-1 if window is None else window - 1, 0)}
    if TAKES_GQA and q.shape[1] != k.shape[1]:
        options["enable_gqa"] = True
    if layout.key_index is not None:
        k, v = (_GatherKeys.apply(x, layout.key_index) for x in (k, v))
    own, value_size = q.shape[-1], v.shape[-1]
    size = -(-max(own, value_size) // 8) * 8
    if own != size or value_size != size:  # the kernel wants one size, a multiple of 8; zeros change no score
        options["scale"] = own**-0.5 if scaling is None else scaling
        q, k, v = (F.pad(x, (0, size - x.shape[-1])) for x in (q, k, v))
    # With torch 2.11 on CUDA, gradients of queries in another layout were wrong. A partial RoPE, which concatenates,
    # leaves such queries behind.
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    # With more keys than queries, the last query is that of the last key.
    out = varlen_attn(q, k, v, layout.cu_seqlens_q, layout.cu_seqlens_k, layout.max_q, layout.max_k, **options)
    assert isinstance(out, Tensor)
    return out[..., :value_size]


@torch.compiler.disable
def _by_document(
    q: Tensor, k: Tensor, v: Tensor, layout: DocumentLayout, scaling: float | None, rule: ScoreRule
) -> Tensor:
    rectangles, inverse = layout.padded_groups()
    repeats = q.shape[1] // k.shape[1]
    outputs = []
    for queries, keys, _ in rectangles:
        # (T, H, D) -> (n, H, L, D)
        qg, kg, vg = (
            x.index_select(0, index.flatten()).view(*index.shape, *x.shape[1:]).transpose(1, 2)
            for x, index in ((q, queries), (k, keys), (v, keys))
        )
        mask = rule.mask(queries.shape[1], keys.shape[1], q.device)
        if rule.changes_scores:
            out = explicit_attention(qg, kg, vg, mask, scaling, rule)
        else:
            kg, vg = kg.repeat_interleave(repeats, dim=1), vg.repeat_interleave(repeats, dim=1)
            out = F.scaled_dot_product_attention(qg, kg, vg, attn_mask=mask, is_causal=mask is None, scale=scaling)
        outputs.append(out.transpose(1, 2).reshape(-1, q.shape[1], v.shape[-1]))
    return torch.cat(outputs).index_select(0, inverse)


def explicit_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, rule: ScoreRule
) -> Tensor:
    """Attention by its formula, with all scores in memory, for `query (B, Hq, Q, D)`, `key` and `value (B, Hkv, K, D)`;
    returns `(B, Hq, Q, D)`. `mask` is true (or 0, if it is not boolean) for visible keys; None: causal."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query @ key.transpose(-1, -2)).float() * scale
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    lowest = torch.finfo(scores.dtype).min  # not -inf: rows of padding see nothing
    scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    if rule.sinks is not None:
        sinks = rule.sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        weights = torch.cat([scores, sinks], dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return weights.to(value.dtype) @ value


def unused_dropout(config: PretrainedConfig) -> str | None:
    """A sentence if the configuration asks for dropout of attention weights, which packed attention does not do."""
    text = config.get_text_config()
    for name in ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob"):
        if rate := getattr(text, name, None):
            return f"{name} is {rate} in the model's configuration; packed training does not drop attention weights."
    return None


AttentionInterface.register(ATTENTION, functools.partial(packed_attention, allow_flash=True))
AttentionInterface.register(VARLEN_ATTENTION, packed_attention)
AttentionInterface.register(SDPA_ATTENTION, functools.partial(packed_attention, allow_varlen=False))
for _name in (ATTENTION, VARLEN_ATTENTION, SDPA_ATTENTION):
    AttentionMaskInterface.register(_name, sdpa_mask)
