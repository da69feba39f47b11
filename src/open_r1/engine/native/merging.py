"""Linear layers with the same input, merged into one: fewer and larger kernels per step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MERGED = {"self_attn": ("q_proj", "k_proj", "v_proj"), "mlp": ("gate_proj", "up_proj")}
"""Layers that share an input, by the module that calls them."""


class MergedLinear(nn.Module):
    """`layers` as one. Their weights become views of its weight, so updates of the parts reach it."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.sizes = [layer.out_features for layer in layers]
        self.weight = self._joined([layer.weight for layer in layers])
        self.bias = None if layers[0].bias is None else self._joined([layer.bias for layer in layers])
        self._input: Tensor | None = None
        self._outputs: tuple[Tensor, ...] = ()

    def _joined(self, parts: Sequence[Any]) -> nn.Parameter:
        whole = nn.Parameter(torch.cat([part.data for part in parts]), requires_grad=False)
        for part, view in zip(parts, whole.data.split(self.sizes), strict=True):
            part.data = view
        return whole

    def output(self, index: int, x: Tensor) -> Tensor:
        """The output of layer `index` for `x`. The first call for `x` computes all outputs, the last layer's drops
        them."""
        if self._input is not x:
            self._input, self._outputs = x, F.linear(x, self.weight, self.bias).split(self.sizes, -1)
        output = self._outputs[index]
        if index == len(self.sizes) - 1:
            self._input, self._outputs = None, ()
        return output


class Part(nn.Module):
    """Layer `index` of a merged one."""

    def __init__(self, merged: MergedLinear, index: int) -> None:
        super().__init__()
        self.merged, self.index = merged, index

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        return self.merged.output(self.index, x)


def merge_linears(layers: Sequence[nn.Module]) -> None:
    """Merges linear layers of decoder layers where possible, in place."""
    for layer in layers:
        for owner, names in MERGED.items():
            module = getattr(layer, owner, None)
            parts = [getattr(module, name, None) for name in names]
            if all(type(part) is nn.Linear for part in parts) and len({_kind(part) for part in parts}) == 1:
                merged = MergedLinear(parts)  # type: ignore[arg-type]
                for index, name in enumerate(names):
                    setattr(module, name, Part(merged, index))


def _kind(layer: Any) -> tuple:
    return layer.in_features, layer.weight.dtype, layer.bias is None
