"""Exact attention over packed documents: no document sees another, and padding costs nothing.

The function registered here with transformers' attention interface under `ATTENTION` (and, without `varlen_attn`,
under `SDPA_ATTENTION`) serves both uses of a
policy. With a `layout` (training) it attends document by document: by PyTorch's `varlen_attn` on CUDA in half
precision, else by `scaled_dot_product_attention` over documents batched by similar length. Without one
(generation) it is transformers' own sdpa.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from open_r1.errors import UserError

ATTENTION = "open_r1"
SDPA_ATTENTION = "open_r1_sdpa"
MAX_PADDING = 1.25


class DocumentLayout:
    """Where N documents begin and end in a pack of T tokens.

    `lengths` (N ints), `max_length`, `cu_seqlens (N + 1,)` int32 cumulative lengths as `varlen_attn` wants them.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str) -> None:
        self.lengths = list(lengths)
        self.max_length = max(lengths)
        self.device = device
        self.cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).to(device=device, dtype=torch.int32)
        self._groups: tuple[list[Tensor], Tensor] | None = None

    def padded_groups(self) -> tuple[list[Tensor], Tensor]:
        """Documents as rows of a few rectangles, each with at most a quarter of padding.

        Returns `(groups, inverse)`: each group is an index `(n, L)` into the T tokens (padding repeats a
        document's last token, which under a causal mask nothing real can see), and `inverse (T,)` finds every
        token in the rectangles laid end to end.
        """
        if self._groups is None:
            self._groups = _padded_groups(self.lengths, self.device)
        return self._groups


def _padded_groups(lengths: list[int], device: torch.device | str) -> tuple[list[Tensor], Tensor]:
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0).tolist()
    inverse = torch.empty(sum(lengths), dtype=torch.long)
    groups: list[Tensor] = []
    members: list[int] = []
    offset = 0

    def close() -> None:
        nonlocal offset
        width = lengths[members[0]]
        columns = torch.arange(width)
        ends = torch.tensor([lengths[m] for m in members])[:, None]
        index = torch.tensor([starts[m] for m in members])[:, None] + torch.minimum(columns, ends - 1)
        real = columns < ends
        inverse[index[real]] = offset + real.flatten().nonzero().squeeze(1)
        groups.append(index.to(device))
        offset += index.numel()

    real_tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if members and lengths[members[0]] * (len(members) + 1) > MAX_PADDING * (real_tokens + lengths[i]):
            close()
            members, real_tokens = [], 0
        members.append(i)
        real_tokens += lengths[i]
    close()
    return groups, inverse.to(device)


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
    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {"scale": scaling, "window_size": (-1 if window is None else window - 1, 0)}
    if q.shape[1] != k.shape[1] and "enable_gqa" in inspect.signature(varlen_attn).parameters:  # torch 2.12 on
        options["enable_gqa"] = True
    cu, longest = layout.cu_seqlens, layout.max_length
    out = varlen_attn(q, k, v, cu, cu, longest, longest, **options)
    assert isinstance(out, Tensor)
    return out


def _sdpa_by_document(
    q: Tensor, k: Tensor, v: Tensor, layout: DocumentLayout, scaling: float | None, window: int | None
) -> Tensor:
    groups, inverse = layout.padded_groups()
    repeats = q.shape[1] // k.shape[1]
    outputs = []
    for index in groups:
        n, width = index.shape
        # (T, H, D) -> (n, H, width, D)
        qg, kg, vg = (
            x.index_select(0, index.flatten()).view(n, width, *x.shape[1:]).transpose(1, 2) for x in (q, k, v)
        )
        kg, vg = kg.repeat_interleave(repeats, dim=1), vg.repeat_interleave(repeats, dim=1)
        mask = None
        if window is not None and window < width:
            age = torch.arange(width, device=q.device)[:, None] - torch.arange(width, device=q.device)
            mask = (age >= 0) & (age < window)
        out = F.scaled_dot_product_attention(qg, kg, vg, attn_mask=mask, is_causal=mask is None, scale=scaling)
        outputs.append(out.transpose(1, 2).reshape(n * width, q.shape[1], v.shape[-1]))
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


AttentionInterface.register(ATTENTION, packed_attention)
AttentionInterface.register(SDPA_ATTENTION, functools.partial(packed_attention, allow_varlen=False))
for _name in (ATTENTION, SDPA_ATTENTION):
    AttentionMaskInterface.register(_name, sdpa_mask)
