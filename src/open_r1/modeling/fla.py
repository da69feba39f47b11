"""Gated delta nets over whole packs, with the kernels of fla-core, which keep documents apart. Experimental: the
kernels have not been compared with transformers' own functions on a GPU yet.

`linear_attention: fla` calls `use_fla`. As with every model, packed and separate results are then compared.
"""

import functools
import importlib.util
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from open_r1.errors import UserError
from open_r1.installing import install_command
from open_r1.modeling.mixers import mixers

CONVOLUTION, RULE = "causal_conv1d_fn", "torch_chunk_gated_delta_rule"
"""What transformers' gated delta nets call: a function of their module for the convolution, and one for the rule."""


def use_fla(model: nn.Module) -> None:
    """Makes the gated delta nets of `model` process whole packs. Raises UserError if they cannot."""
    nets = [mixer for mixer in mixers(model) if "GatedDeltaNet" in type(mixer).__name__]
    if not nets:
        raise UserError("linear_attention is fla, but the model has no gated delta nets: omit it.")
    if not torch.cuda.is_available():
        raise UserError("linear_attention is fla, which needs a CUDA device: omit it on this machine.")
    if importlib.util.find_spec("fla") is None:
        raise UserError(f"linear_attention is fla, which needs fla-core: {install_command('fla')}.")
    try_kernels(nets[0])
    take_packs(nets)


def try_kernels(net: nn.Module) -> None:
    """Runs one token forward and backward with the sizes of `net`. Raises `UserError` if fla-core refuses: it does so
    for some pairs of GPU and Triton version, but only in the backward pass."""
    make = functools.partial(torch.rand, device="cuda", requires_grad=True)
    heads, key_dim, value_dim = net.num_v_heads, net.head_k_dim, net.head_v_dim
    query, key = (make(1, 1, heads, key_dim, dtype=torch.bfloat16) for _ in range(2))
    value = make(1, 1, heads, value_dim, dtype=torch.bfloat16)
    decay, beta = -make(1, 1, heads), make(1, 1, heads, dtype=torch.bfloat16)
    boundaries = torch.tensor([0, 1], device="cuda")
    try:
        out, _ = _rule(None, query, key, value, decay, beta, boundaries)
        out.sum().backward()
    except (ImportError, RuntimeError) as error:
        message = f"linear_attention is fla, whose kernels do not run here: {str(error).rstrip('.')}. Or omit it."
        raise UserError(message) from error


def take_packs(nets: list[nn.Module], device_type: str = "cuda") -> None:
    """Replaces the functions that `nets` call by those of fla-core, which get the boundaries of documents on devices of
    `device_type`."""
    for net in nets:
        modeling = sys.modules[type(net).__module__]
        if not hasattr(modeling, CONVOLUTION) or not hasattr(modeling, RULE):
            raise UserError(f"linear_attention is fla, and {type(net).__name__} has a different structure: omit it.")
        _replace(modeling, CONVOLUTION, _convolution)
        _replace(modeling, RULE, _rule)
        net.takes_packs_on = device_type  # type: ignore[assignment]


def _replace(modeling: ModuleType, name: str, by: Any) -> None:
    plain = getattr(modeling, name)
    if not isinstance(plain, functools.partial):
        setattr(modeling, name, functools.partial(by, plain))


def _convolution(
    plain: Any,
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """`hidden_states (1, C, T)` and `weight (C, K)`, causal within each document."""
    if cu_seq_lens_q is None:
        return plain(hidden_states, weight, bias, activation=activation, **kwargs)
    from fla.modules.causal_conv1d import causal_conv1d

    rows = hidden_states.transpose(1, 2).to(weight.dtype)
    out, _ = causal_conv1d(rows, weight, bias, activation=activation, cu_seqlens=cu_seq_lens_q.long())
    return out.transpose(1, 2).to(hidden_states.dtype)


def _rule(
    plain: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    cu_seqlens: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """`query`, `key`, `value (1, T, H, D)`, `g` and `beta (1, T, H)`; each document starts with an empty state."""
    if cu_seqlens is None:
        return plain(query, key, value, g=g, beta=beta, **kwargs)
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    out, _ = chunk_gated_delta_rule(
        query, key, value, g=g, beta=beta, use_qk_l2norm_in_kernel=True, cu_seqlens=cu_seqlens.long()
    )
    return out, None
