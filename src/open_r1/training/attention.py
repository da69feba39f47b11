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
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from open_r1.errors import UserError

ATTENTION = "open_r1"
SDPA_ATTENTION = "open_r1_sdpa"
MAX_PADDING = 1.25
TAKES_GQA = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""From torch 2.12 on, `varlen_attn` wants to be told that there are fewer keys than queries; before, it saw."""


class DocumentLayout:
    """Where the N documents of a pack of T tokens begin and end, and what each attends to.

    A document may continue another one, its parent, which many can share: its tokens then attend to all of the
    parent's tokens and to their own up to themselves. `lengths` are the documents' own tokens; `cu_seqlens_q
    (N + 1,)`, `cu_seqlens_k (N + 1,)` int32 and `max_q`, `max_k` are what `varlen_attn` wants; `key_index (K,)` says
    which tokens are the keys, document by document, parents first (None: each document has its own tokens only).
    """

    def __init__(
        self, lengths: Sequence[int], device: torch.device | str, parents: Sequence[int | None] | None = None
    ) -> None:
        self.lengths = list(lengths)
        self.device = device
        self.starts = torch.tensor([0, *self.lengths]).cumsum(0)
        self.parents = list(parents) if parents is not None else [None] * len(self.lengths)
        self.prefixes = [0 if p is None else self.lengths[p] for p in self.parents]
        key_lengths = [own + prefix for own, prefix in zip(self.lengths, self.prefixes, strict=True)]
        self.max_q, self.max_k = max(self.lengths), max(key_lengths)
        self.cu_seqlens_q = self.starts.to(device=device, dtype=torch.int32)
        self.cu_seqlens_k, self.key_index = self.cu_seqlens_q, None
        if any(self.prefixes):
            self.cu_seqlens_k = torch.tensor([0, *key_lengths]).cumsum(0).to(device=device, dtype=torch.int32)
            self.key_index = torch.cat([self.keys_of(i) for i in range(len(self.lengths))]).to(device)
        self._groups: tuple[list[Rectangle], Tensor] | None = None

    def tokens_of(self, i: int) -> Tensor:
        """Where the tokens of document i are in the pack."""
        return torch.arange(int(self.starts[i]), int(self.starts[i + 1]))

    def keys_of(self, i: int) -> Tensor:
        """Where the tokens that document i attends to are in the pack."""
        parent = self.parents[i]
        own = self.tokens_of(i)
        return own if parent is None else torch.cat([self.tokens_of(parent), own])

    def padded_groups(self) -> tuple[list["Rectangle"], Tensor]:
        """Documents as rows of a few rectangles, each with at most a quarter of padding.

        Returns the rectangles, and `inverse (T,)`, which finds every token in them, laid end to end.
        """
        if self._groups is None:
            self._groups = _padded_groups(self)
        return self._groups


class Rectangle(NamedTuple):
    """n documents of at most L tokens that continue equally many: `queries (n, L)` and `keys (n, prefix + L)` index
    the tokens of a pack. Padding repeats a document's last token, which nothing real can see."""

    queries: Tensor
    keys: Tensor
    prefix: int


def _padded_groups(layout: DocumentLayout) -> tuple[list[Rectangle], Tensor]:
    lengths, prefixes = layout.lengths, layout.prefixes
    inverse = torch.empty(sum(lengths), dtype=torch.long)
    groups: list[Rectangle] = []
    members: list[int] = []
    offset = 0

    def close() -> None:
        nonlocal offset
        width, prefix = lengths[members[0]], prefixes[members[0]]
        columns = torch.arange(width)
        ends = torch.tensor([lengths[m] for m in members])[:, None]
        index = layout.starts[members][:, None] + torch.minimum(columns, ends - 1)
        real = columns < ends
        inverse[index[real]] = offset + real.flatten().nonzero().squeeze(1)
        keys = index
        if prefix:
            parents = torch.stack([layout.tokens_of(p) for m in members if (p := layout.parents[m]) is not None])
            keys = torch.cat([parents, index], dim=1)
        groups.append(Rectangle(index.to(layout.device), keys.to(layout.device), prefix))
        offset += index.numel()

    real_tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: (prefixes[i], -lengths[i])):
        fits = members and prefixes[i] == prefixes[members[0]]
        if members and not (
            fits and lengths[members[0]] * (len(members) + 1) <= MAX_PADDING * (real_tokens + lengths[i])
        ):
            close()
            members, real_tokens = [], 0
        members.append(i)
        real_tokens += lengths[i]
    close()
    return groups, inverse.to(layout.device)


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


AttentionInterface.register(ATTENTION, packed_attention)
AttentionInterface.register(SDPA_ATTENTION, functools.partial(packed_attention, allow_varlen=False))
for _name in (ATTENTION, SDPA_ATTENTION):
    AttentionMaskInterface.register(_name, sdpa_mask)
