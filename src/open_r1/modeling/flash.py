"""flash-attn-4 (https://github.com/Dao-AILab/flash-attention, `flash_attn.cute`) as an operation of PyTorch.

Causal attention over packed documents with grouped heads, windows, softcapped scores and sinks. The package is optional
(extra `flash`). Its kernels are compiled when first used on a GPU, which takes seconds, and cached in
`~/.cache/open_r1/flash_attention`. Because it is an operation with a registered backward, attention does not break the
graph of a compiled layer. With `torch.use_deterministic_algorithms` (`full_determinism: true`), the backward pass sums
in a fixed order.
"""

import functools
import logging
import math
import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from open_r1.internals.transformers import replace_checkpointing
from open_r1.modeling.mixers import is_mixer

logger = logging.getLogger(__name__)

NO_WINDOW = -1
LEAST_BOUND = 512
"""Lengths are bounds for the kernels, which compile separate versions if one block holds every document. No pack is
that short for them, so that a short one compiles nothing in the middle of a run."""
HEAD_SIZES = 32, 64, 96, 128, 256
"""Sizes at which outputs and gradients equal the formula on an H200 (`pytest -m gpu tests/modeling/test_flash.py`).
Version 4.0.0b36 accepts 8, 16 and 80 as well, and returns wrong numbers without an error."""
HALF = (torch.bfloat16, torch.float16)
LARGEST_HEAD = {9: 256, 10: 128, 11: 128}
"""By major compute capability: Hopper, Blackwell."""


@functools.cache
def kernels() -> Any:
    """The package's kernels; None if it is not installed or cannot be imported."""
    if find_spec("flash_attn") is None:
        return None
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
    cache = Path.home() / ".cache" / "open_r1" / "flash_attention"
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(cache))
    try:
        if find_spec("flash_attn.cute") is None:  # FlashAttention 2
            return None
        from open_r1.internals import flash_attn
    except (ImportError, AttributeError) as error:  # AttributeError: another version of a package that it builds on
        logger.warning("flash-attn-4 is installed but cannot be imported, so it is not used: %s", error)
        return None
    return flash_attn


@torch.compiler.assume_constant_result  # else a compiled layer would trace the import
def _largest_head() -> int:
    """The largest head on the GPU of this process; 0 without a GPU or the package."""
    if not torch.cuda.is_available() or kernels() is None:
        return 0
    return LARGEST_HEAD.get(torch.cuda.get_device_capability()[0], 0)


def is_used(sizes: Collection[int], device_type: str, dtype: torch.dtype, option: str | None = None) -> bool:
    """Whether flash-attn-4 computes attention for heads whose queries, keys and values have `sizes`.

    It does so in half precision, on a GPU that it supports, for sizes with correct results, unless
    `attn_implementation` (`option`) names another kernel. A machine without GPUs may plan for one with GPUs: there,
    `flash_attention_4` counts as supported.
    """
    if device_type != "cuda" or dtype not in HALF or option not in (None, "flash_attention_4"):
        return False
    if not all(size in HEAD_SIZES for size in sizes):
        return False
    planned = option == "flash_attention_4" and not torch.cuda.is_available()
    largest = max(LARGEST_HEAD.values()) if planned else _largest_head()
    return max(sizes) <= largest


def fits(q: Tensor, v: Tensor) -> bool:
    """`is_used` for heads `q (T, Hq, D)`, `v (K, Hkv, E)`."""
    return is_used((q.shape[-1], v.shape[-1]), v.device.type, v.dtype)


def head_sizes(model: nn.Module) -> set[tuple[int, int]]:
    """Sizes of queries (and keys) and of values in the attention layers of `model`."""
    found = set()
    for module in model.modules():
        names = ("qk_head_dim", "head_dim", "head_size")
        size = next((value for name in names if (value := getattr(module, name, None))), None)
        if isinstance(size, int) and hasattr(module, "layer_idx") and not is_mixer(module):
            found.add((size, getattr(module, "v_head_dim", None) or size))
    return found


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention `(T, Hq, E)` of `q (T, Hq, D)` to `k (K, Hkv, D)` and `v (K, Hkv, E)`, causal within each document.

    The last query of a document belongs to its last key. A query sees the last `window` keys, including its own. A
    `softcap` c turns a score s into c tanh(s / c). `sinks (Hq,)` are scores of a key without a value. Differentiable
    with respect to `q`, `k`, `v` and `sinks`.
    """
    out, _ = _forward(
        q.contiguous(),  # as the operation's fake kernels promise of the gradients
        k.contiguous(),
        v.contiguous(),
        cu_seqlens_q,
        cu_seqlens_k,
        sinks,
        max_q,
        max_k,
        1 / math.sqrt(q.shape[-1]) if scale is None else scale,
        NO_WINDOW if window is None else window,
        0.0 if softcap is None else softcap,
    )
    return out


def _options(max_q: int, max_k: int, window: int) -> dict[str, Any]:
    windowed = NO_WINDOW < window < max_k
    return {
        "max_seqlen_q": max(max_q, LEAST_BOUND),
        "max_seqlen_k": max(max_k, LEAST_BOUND),
        "causal": not windowed,
        "window_size_left": window - 1 if windowed else None,
        "window_size_right": 0 if windowed else None,
    }


@torch.library.custom_op("open_r1::flash_attention", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    sinks: Tensor | None,
    max_q: int,
    max_k: int,
    scale: float,
    window: int,
    softcap: float,
) -> tuple[Tensor, Tensor]:
    layer = _layers[-1] if _layers else None
    if layer is not None and layer.replaying:
        return layer.take()
    out, lse, *_ = kernels().forward(
        q,
        k,
        v,
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
        softmax_scale=scale,
        softcap=softcap,
        learnable_sink=sinks,
        return_lse=True,
        **_options(max_q, max_k, window),
    )
    if layer is not None:
        layer.outputs.append((out.detach(), lse.detach()))  # the tensors themselves become part of a graph
    return out, lse


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    tokens, heads, _ = q.shape
    return q.new_empty(tokens, heads, v.shape[-1]), q.new_empty(heads, tokens, dtype=torch.float32)


@torch.library.custom_op("open_r1::flash_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    sinks: Tensor | None,
    max_q: int,
    max_k: int,
    scale: float,
    window: int,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gradients = kernels().backward(
        q,
        k,
        v,
        out,
        grad,
        lse,
        softmax_scale=scale,
        softcap=softcap,
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        learnable_sink=sinks,
        **_options(max_q, max_k, window),
    )
    dq, dk, dv, *rest = gradients
    return dq, dk, dv, rest[0] if rest else lse.new_empty(0)


@_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    sinks = rest[2]
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    return dq, dk, dv, lse.new_empty(0) if sinks is None else torch.empty_like(sinks)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_seqlens_q, cu_seqlens_k, sinks, *ctx.numbers = inputs
    out, lse = output
    ctx.save_for_backward(q, k, v, out, lse, cu_seqlens_q, cu_seqlens_k, sinks)
    ctx.mark_non_differentiable(lse)


def _gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: a checkpointed layer is computed again to give them
    dq, dk, dv, dsinks = _backward(grad, *saved, *ctx.numbers)
    return dq, dk, dv, None, None, None if saved[-1] is None else dsinks, None, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_save)


def keep_attention_of(model: torch.nn.Module) -> None:
    """Makes the checkpointed layers of `model` keep the outputs of attention (`keep_attention`), unless their
    checkpoints are reentrant, which does not support this."""

    def keeping(checkpoint: Any) -> Any:
        if not isinstance(checkpoint, functools.partial) or checkpoint.keywords.get("use_reentrant") is not False:
            return None
        keywords: dict[str, Any] = {"context_fn": keep_attention} | checkpoint.keywords
        return functools.partial(checkpoint.func, **keywords)

    replace_checkpointing(model, keeping)


class _LayerAttention:
    """Attention outputs of a checkpointed layer, stored in its forward pass for its recomputation."""

    def __init__(self) -> None:
        self.outputs: list[tuple[Tensor, Tensor]] = []
        self.replaying = False

    def take(self) -> tuple[Tensor, Tensor]:
        return self.outputs.pop(0)


_layers: list[_LayerAttention] = []
"""The checkpointed layers that are currently being computed, innermost last."""


def keep_attention() -> tuple[AbstractContextManager, AbstractContextManager]:
    """A `context_fn` for `torch.utils.checkpoint`: the backward pass recomputes the layer, but not its attention. Keeps
    `T Hq E` numbers per layer, and one per token and head."""
    layer = _LayerAttention()

    @contextmanager
    def computing(replaying: bool) -> Iterator[None]:
        layer.replaying = replaying
        _layers.append(layer)
        try:
            yield
        finally:
            _layers.pop()

    return computing(False), computing(True)
