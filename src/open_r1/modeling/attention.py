"""Exact attention over packed documents: no document sees another, and padding costs nothing.

`packed_attention` is registered with transformers' attention interface as `ATTENTION` (and, without `varlen_attn`, as
`SDPA_ATTENTION`). It serves both uses of a policy. With a `layout` (training) it attends document by document: by
PyTorch's `varlen_attn` on CUDA in half precision, else by `scaled_dot_product_attention` over documents batched by
similar length. Without one (generation) it is transformers' own sdpa.
"""

import functools
import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from open_r1.errors import UserError
from open_r1.modeling.layout import DocumentLayout

ATTENTION = "open_r1"
SDPA_ATTENTION = "open_r1_sdpa"
TAKES_GQA = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""From torch 2.12 on, `varlen_attn` wants to be told that there are fewer keys than queries; before, it saw."""


class _GatherKeys(torch.autograd.Function):
    """`x[index]` of `x (T, H, D)`, whose gradient sums what shared tokens get from all who share them in float32."""

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
    allow_varlen: bool = True,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention for `query (B, Hq, T, D)`, `key` and `value (B, Hkv, T, D)`; returns `(B, T, Hq, D)`.

    With a `layout` B is 1, attention is causal within each document, and `attention_mask` is not read.
    """
    if layout is None:
        if sliding_window is not None:
            kwargs["sliding_window"] = sliding_window
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if allow_varlen and use_varlen(v):
        out = _varlen(q.to(v.dtype), k.to(v.dtype), v, layout, scaling, sliding_window)
    else:
        out = _sdpa_by_document(q, k.to(q.dtype), v.to(q.dtype), layout, scaling, sliding_window)
    return out[None].to(value.dtype), None


def use_varlen(x: Tensor) -> bool:
    """Whether `varlen_attn` can take this tensor: CUDA, half precision, heads of at most 256."""
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16) and x.shape[-1] <= 256


def _varlen(
    q: Tensor, k: Tensor, v: Tensor, layout: DocumentLayout, scaling: float | None, window: int | None
) -> Tensor:
    options: dict[str, Any] = {"scale": scaling, "window_size": (-1 if window is None else window - 1, 0)}
    if TAKES_GQA and q.shape[1] != k.shape[1]:
        options["enable_gqa"] = True
    if layout.key_index is not None:
        k, v = (_GatherKeys.apply(x, layout.key_index) for x in (k, v))
    # With more keys than queries, the last query is that of the last key.
    out = varlen_attn(q, k, v, layout.cu_seqlens_q, layout.cu_seqlens_k, layout.max_q, layout.max_k, **options)
    assert isinstance(out, Tensor)
    return out


@torch.compiler.disable
def _sdpa_by_document(
    q: Tensor, k: Tensor, v: Tensor, layout: DocumentLayout, scaling: float | None, window: int | None
) -> Tensor:
    rectangles, inverse = layout.padded_groups()
    repeats = q.shape[1] // k.shape[1]
    outputs = []
    for queries, keys, prefix in rectangles:
        # (T, H, D) -> (n, H, L, D)
        qg, kg, vg = (
            x.index_select(0, index.flatten()).view(*index.shape, *x.shape[1:]).transpose(1, 2)
            for x, index in ((q, queries), (k, keys), (v, keys))
        )
        kg, vg = kg.repeat_interleave(repeats, dim=1), vg.repeat_interleave(repeats, dim=1)
        mask = None
        if prefix or (window is not None and window < queries.shape[1]):
            positions = torch.arange(keys.shape[1], device=q.device)
            age = positions[prefix:, None] - positions
            mask = (age >= 0) if window is None else (age >= 0) & (age < window)
        out = F.scaled_dot_product_attention(qg, kg, vg, attn_mask=mask, is_causal=mask is None, scale=scaling)
        outputs.append(out.transpose(1, 2).reshape(-1, q.shape[1], v.shape[-1]))
    return torch.cat(outputs).index_select(0, inverse)


def check_attention_supported(config: PretrainedConfig) -> None:
    """Raises UserError, naming the architecture, if its attention is not the kind computed here.

    Supported: full and sliding-window causal softmax attention. Refused: softcapped scores, attention sinks,
    linear attention and state-space layers, encoder-decoders.
    """
    name = f"{config.model_type} ({(getattr(config, 'architectures', None) or ['?'])[0]})"
    reasons = []
    kinds = set(getattr(config, "layer_types", None) or [])
    if kinds - {"full_attention", "sliding_attention"}:
        reasons.append(f"layers of type {', '.join(sorted(kinds - {'full_attention', 'sliding_attention'}))}")
    if getattr(config, "attn_logit_softcapping", None):
        reasons.append("softcapped attention scores")
    if config.model_type in ("gpt_oss", "gpt-oss"):
        reasons.append("attention sinks")
    if getattr(config, "is_encoder_decoder", False):
        reasons.append("an encoder and a decoder")
    if reasons:
        raise UserError(
            f"model_name_or_path: {name} has {' and '.join(reasons)}, which packed training does not compute "
            "exactly. Use a model with full or sliding-window attention (Llama, Qwen2, Qwen3, Mistral, SmolLM, "
            "Gemma 3 ...)."
        )


def unused_dropout(config: PretrainedConfig) -> str | None:
    """A sentence if the configuration asks for dropout of attention weights, which packed attention does not do."""
    text = config.get_text_config()
    for name in ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob"):
        if rate := getattr(text, name, None):
            return f"{name} is {rate} in the model's configuration; packed training does not drop attention weights."
    return None


AttentionInterface.register(ATTENTION, packed_attention)
AttentionInterface.register(SDPA_ATTENTION, functools.partial(packed_attention, allow_varlen=False))
for _name in (ATTENTION, SDPA_ATTENTION):
    AttentionMaskInterface.register(_name, sdpa_mask)
