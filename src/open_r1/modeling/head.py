"""Token logprobs directly from hidden states: the head's matrix product, log-softmax and their gradients in one
function that never stores a `(tokens, vocabulary)` matrix.

Logits exist for one chunk of tokens at a time. They are in float32 whatever the dtype of the factors, as in the native
engine: bfloat16 logits would round away a hundredth of a nat. The forward pass keeps one number per token, log Z; the
backward pass recomputes each chunk of logits, and its products are in the dtype of the weight or of autocast. The
head's weight is cast once for all chunks, and its gradient is summed in float32. On CUDA, the softmax arithmetic is
compiled (`torch.compile`), so that each logit is read and written once.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from open_r1.modeling.compiling import can_compile, compile_rows

MAX_LOGITS = 2**26
"""Logits in one chunk, tokens times vocabulary: 256 MiB in float32."""
MAX_LOGITS_COMPILED = 2**27
"""The same where the softmax makes no second copy: 512 MiB."""


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
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rule: LogitRule
    ) -> tuple[Tensor, Tensor]:
        ctx.dtype = _product_dtype(weight)
        ctx.rule = rule
        ctx.chunk = _tokens_in_chunk(weight)
        statistics = _functions(weight.device.type)[0]
        logprobs, log_z, entropies = (
            torch.empty(len(targets), dtype=torch.float32, device=hidden.device) for _ in range(3)
        )
        with torch.autocast(hidden.device.type, enabled=False):
            head, offset = weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype)
            for part in _slices(len(targets), ctx.chunk):
                product = float32_product(hidden[part].to(ctx.dtype), head, offset)
                logprobs[part], log_z[part], entropies[part] = statistics(product, targets[part], rule)
                del product  # so that two chunks of logits never exist at once
        ctx.save_for_backward(hidden, weight, bias, targets, log_z)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, weight, bias, targets, log_z = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        gradient = _functions(weight.device.type)[1]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if wants_weight else None
        grad_bias = torch.zeros(len(weight), dtype=torch.float32, device=weight.device) if wants_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            head, offset = weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype)
            for part in _slices(len(targets), ctx.chunk):
                inputs = hidden[part].to(ctx.dtype)
                product = float32_product(inputs, head, offset)
                d_product = gradient(product, targets[part], log_z[part], grad[part], ctx.rule, ctx.dtype)
                del product
                if grad_hidden is not None:
                    grad_hidden[part] = d_product @ head
                if grad_weight is not None:
                    add_product(grad_weight, d_product.t(), inputs)
                if grad_bias is not None:
                    grad_bias += d_product.float().sum(0)
                del d_product
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(weight.dtype),
            None,
            None,
        )


def head_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rule: LogitRule
) -> tuple[Tensor, Tensor]:
    """Logprobs `(M,)` of `targets (M,)`, differentiable, and entropies `(M,)`, detached; both float32, in nats.

    `hidden (M, H)`, `weight (V, H)`, `bias (V,)`. The product is computed in autocast's dtype, else in the weight's.
    """
    return _HeadLogprobs.apply(hidden, weight, bias, targets, rule)


def float32_product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Head times hidden states `(M, V)`, without gradient: factors in their own dtype, sums and result in float32."""
    if hidden.is_cuda and hidden.dtype != torch.float32:
        product = torch.mm(hidden, weight.t(), out_dtype=torch.float32)
    else:
        product = hidden.float() @ weight.float().t()
    return product if bias is None else product + bias.float()


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds `left @ right` to `total`, which is float32: factors in their own dtype, sums in float32."""
    if left.is_cuda and left.dtype != torch.float32:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total += left @ right


def statistics(product: Tensor, targets: Tensor, rule: LogitRule) -> tuple[Tensor, Tensor, Tensor]:
    """Logprobs of `targets`, log Z and entropies, each `(M,)`, of the distributions over the rows of `product`.

    H = log Z - sum_v p_v x_v, with p = exp(x) / Z.
    """
    x, _ = rule.apply(product)
    top = x.amax(-1, keepdim=True)
    shares = (x - top).exp()
    total = shares.sum(-1)
    top = top.squeeze(-1)
    log_total = total.log()
    logprobs = x.gather(-1, targets[:, None]).squeeze(-1) - top - log_total
    log_z = top + log_total
    return logprobs, log_z, log_z - (shares * x).sum(-1) / total


def product_gradient(
    product: Tensor, targets: Tensor, log_z: Tensor, grad: Tensor, rule: LogitRule, dtype: torch.dtype
) -> Tensor:
    """Gradient, in `dtype`, of the logprobs weighted by `grad (M,)` with respect to `product (M, V)`:
    d log p_t / d x_v = [v = t] - p_v."""
    x, slope = rule.apply(product)
    p = (x - log_z[:, None]).exp()
    is_target = torch.arange(product.shape[1], device=product.device) == targets[:, None]
    return ((is_target.float() - p) * slope * grad[:, None]).to(dtype)


@functools.cache
def _functions(device_type: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    if device_type == "cuda" and can_compile():
        return compile_rows(statistics), compile_rows(product_gradient)
    return statistics, product_gradient


def _product_dtype(weight: Tensor) -> torch.dtype:
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _tokens_in_chunk(weight: Tensor) -> int:
    logits = MAX_LOGITS_COMPILED if weight.is_cuda and can_compile() else MAX_LOGITS
    return max(1, logits // len(weight))


def _slices(length: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, length)) for start in range(0, length, chunk)]
