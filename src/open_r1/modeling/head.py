"""Token logprobs directly from hidden states: the head's matrix product, log-softmax and their gradients in one
function that never stores all logits.

Logits exist for one chunk of tokens at a time. They are in float32 whatever the dtype of the factors, as in the native
engine: bfloat16 logits would round away a hundredth of a nat. The backward pass needs the gradient of each logprob with
respect to its row of the product. The forward pass stores these rows in the dtype of the products, up to `MAX_STORED`;
the backward pass recomputes the others, from log Z. The incoming gradient of a token's logprob scales its whole row, so
it is applied to hidden states, which have fewer numbers.

The head's weight is cast once for all chunks, and its gradient is summed in float32. On CUDA, the softmax arithmetic is
compiled (`torch.compile`), so that each logit is read and written once.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from open_r1.devices import device_memory
from open_r1.modeling.compiling import can_compile, compile_rows

MAX_LOGITS = 2**26
"""Logits in one chunk, tokens times vocabulary: 256 MiB in float32."""
MAX_LOGITS_COMPILED = 2**27
"""The same where the softmax makes no second copy: 512 MiB."""
PARTS = 32
"""Parts of a row of logits, if it can be divided: 19 kB each for Qwen."""
STORED_CHUNKS = 8
"""Chunks whose stored rows form one tensor, and so one factor of a product: few products, because each is added to the
gradient of the weight, which it reads and writes as a whole. Compiled: 2**30 numbers, below the 2**31 from which some
matrix kernels fail."""
COMPUTED_CHUNKS = 4
"""The same for rows that the backward pass computes: 1 GiB in bfloat16."""
MAX_STORED = 2**33
"""Most bytes of rows that the forward pass of a pack stores: 8 GiB, or a sixteenth of the device's memory if that is
less. The backward pass recomputes the rest."""


class LogitRule(NamedTuple):
    """Logits from the product x of hidden state and head: cap tanh(scale x / cap) / temperature."""

    scale: float = 1.0
    cap: float | None = None
    temperature: float = 1.0

    def apply(self, product: Tensor) -> tuple[Tensor, Tensor | float]:
        """Float32 logits `(M, V)` and their derivative with respect to `product`."""
        x = product.float() * self.scale
        slope: Tensor | float = self.scale / self.temperature
        if self.cap is not None:
            squashed = torch.tanh(x / self.cap)
            x, slope = squashed * self.cap, (1 - squashed.square()) * slope
        return x / self.temperature, slope


def logit_rule(config: Any, temperature: float) -> LogitRule:
    """What an architecture does to logits after the head: scaling (Cohere, Granite), softcapping (Gemma)."""
    scale = getattr(config, "logit_scale", None)
    divisor = getattr(config, "logits_scaling", None)
    return LogitRule(
        scale=(1.0 if scale is None else scale) / (1.0 if divisor is None else divisor),
        cap=getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None),
        temperature=temperature,
    )


class _HeadLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rule: LogitRule, store: bool
    ) -> tuple[Tensor, Tensor]:
        dtype, device = _product_dtype(weight), hidden.device
        statistics, write_rows = _functions(device.type)
        chunk = _tokens_in_chunk(weight)
        room = min(MAX_STORED, device_memory(device) // 16) if store and any(ctx.needs_input_grad) else 0
        storable = room // (len(weight) * dtype.itemsize)
        blocks, stored = _blocks(len(targets), storable, chunk), []
        logprobs, log_z, entropies = (torch.empty(len(targets), dtype=torch.float32, device=device) for _ in range(3))
        with torch.autocast(device.type, enabled=False):
            head, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
            for block in blocks:
                rows = None
                if block.stop <= storable:
                    rows = torch.empty(block.stop - block.start, len(weight), dtype=dtype, device=device)
                    stored.append(rows)
                for part in _slices(block, chunk):
                    product = float32_product(hidden[part].to(dtype), head, offset)
                    logprobs[part], log_z[part], entropies[part] = statistics(product, targets[part], rule)
                    if rows is not None:
                        write_rows(rows[_within(part, block)], product, targets[part], log_z[part], rule)
                    del product  # so that two chunks of logits never exist at once
        ctx.rule, ctx.blocks, ctx.weight_dtype = rule, blocks, weight.dtype
        ctx.save_for_backward(hidden, head, offset, targets, log_z, *stored)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, head, offset, targets, log_z, *stored = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        write_rows, chunk = _functions(head.device.type)[1], _tokens_in_chunk(head)
        # Factors of at most 1: float16 does not overflow, and if all are equal, hidden states are not rounded again.
        largest = pad(grad.abs(), (0, 1), value=torch.finfo(torch.float32).tiny).max()
        factors = grad / largest
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = None
        grad_bias = torch.zeros(len(head), dtype=torch.float32, device=head.device) if wants_bias else None
        with torch.autocast(head.device.type, enabled=False):
            for number, block in enumerate(ctx.blocks):
                inputs = hidden[block]
                if number < len(stored):
                    rows = stored[number]
                else:
                    rows = torch.empty(len(inputs), len(head), dtype=head.dtype, device=head.device)
                    for part in _slices(block, chunk):
                        product = float32_product(hidden[part].to(head.dtype), head, offset)
                        write_rows(rows[_within(part, block)], product, targets[part], log_z[part], ctx.rule)
                        del product
                if grad_hidden is not None:
                    grad_hidden[block] = float32_product(rows, head.t(), None).mul_(grad[block, None])
                if wants_weight:
                    scaled = (inputs * factors[block, None]).to(head.dtype)
                    grad_weight = add_product(grad_weight, rows.t(), scaled)
                if grad_bias is not None:
                    for part in _slices(block, chunk):
                        grad_bias += grad[part] @ rows[_within(part, block)].float()
                del rows
        if wants_weight and grad_weight is None:  # no tokens
            grad_weight = torch.zeros_like(head, dtype=torch.float32)
        return (
            grad_hidden,
            None if grad_weight is None else _times(grad_weight, largest, ctx.weight_dtype),
            None if grad_bias is None else grad_bias.to(ctx.weight_dtype),
            None,
            None,
            None,
        )


def head_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rule: LogitRule, recompute: bool = True
) -> tuple[Tensor, Tensor]:
    """Logprobs `(M,)` of `targets (M,)`, differentiable, and entropies `(M,)`, detached; both float32, in nats.

    `hidden (M, H)`, `weight (V, H)`, `bias (V,)`. The product is computed in autocast's dtype, else in the weight's.
    Without `recompute`, the forward pass stores what the backward pass needs of the logits, up to `MAX_STORED` bytes:
    faster, but M times V numbers.
    """
    return _HeadLogprobs.apply(hidden, weight, bias, targets, rule, not recompute and torch.is_grad_enabled())


def float32_product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Head times hidden states `(M, V)`, without gradient: factors in their own dtype, sums and result in float32."""
    if hidden.is_cuda and hidden.dtype != torch.float32:
        product = torch.mm(hidden, weight.t(), out_dtype=torch.float32)
    else:
        product = hidden.float() @ weight.float().t()
    return product if bias is None else product + bias.float()


def add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """`left @ right`, added in place to `total` if there is one: factors in their own dtype, sums in float32."""
    if total is None:
        return float32_product(left, right.t(), None)
    if left.is_cuda and left.dtype != torch.float32:
        return torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    return total.addmm_(left.float(), right.float())


def statistics(product: Tensor, targets: Tensor, rule: LogitRule) -> tuple[Tensor, Tensor, Tensor]:
    """Logprobs of `targets`, log Z and entropies, each `(M,)`, of the distributions over the rows of `product`.

    H = log Z - sum_v p_v x_v, with p = exp(x) / Z. Maximum and sums are computed for one part of a row at a time, which
    is in the cache when it is read again, and then combined as in online softmax (Milakov and Gimelshein, 2018).
    """
    x, _ = rule.apply(product)
    parts = x.unflatten(-1, (PARTS if x.shape[-1] % PARTS == 0 else 1, -1))
    tops = parts.amax(-1)
    exp = (parts - tops[..., None]).exp()
    top = tops.amax(-1)
    shares = (tops - top[:, None]).exp()
    total = (exp.sum(-1) * shares).sum(-1)
    log_total = total.log()
    logprobs = x.gather(-1, targets[:, None]).squeeze(-1) - top - log_total
    log_z = top + log_total
    return logprobs, log_z, log_z - ((exp * parts).sum(-1) * shares).sum(-1) / total


def write_gradient(out: Tensor, product: Tensor, targets: Tensor, log_z: Tensor, rule: LogitRule) -> None:
    """Writes the gradient of each logprob with respect to its row of `product (M, V)` to `out (M, V)`:
    d log p_t / d x_v = [v = t] - p_v."""
    x, slope = rule.apply(product)
    p = (x - log_z[:, None]).exp()
    is_target = torch.arange(product.shape[1], device=product.device) == targets[:, None]
    out.copy_((is_target.float() - p) * slope)


@functools.cache
def _functions(device_type: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    if device_type == "cuda" and can_compile():
        return compile_rows(statistics), compile_rows(write_gradient)
    return statistics, write_gradient


def _times(total: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """The product, rounded to `dtype`: in the memory of `total`, if that is its dtype."""
    return torch.mul(total, factor, out=total if total.dtype == dtype else torch.empty_like(total, dtype=dtype))


def _product_dtype(weight: Tensor) -> torch.dtype:
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _tokens_in_chunk(weight: Tensor) -> int:
    """A multiple of 8, so that all chunks of a tensor are aligned to 16 bytes, unless it is less."""
    logits = MAX_LOGITS_COMPILED if weight.is_cuda and can_compile() else MAX_LOGITS
    tokens = max(1, logits // len(weight))
    return tokens - tokens % 8 if tokens > 8 else tokens


def _blocks(tokens: int, storable: int, chunk: int) -> list[slice]:
    """Blocks of tokens: the first `storable` in blocks of `STORED_CHUNKS` chunks, the rest of `COMPUTED_CHUNKS`."""
    first = slice(0, min(tokens, storable))
    return _slices(first, STORED_CHUNKS * chunk) + _slices(slice(first.stop, tokens), COMPUTED_CHUNKS * chunk)


def _slices(whole: slice, size: int) -> list[slice]:
    return [slice(start, min(start + size, whole.stop)) for start in range(whole.start, whole.stop, size)]


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)
