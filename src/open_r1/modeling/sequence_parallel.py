"""Sequence parallelism: the tokens of a pack are split over the processes of a group.

Each process computes a slice of consecutive tokens. Only attention needs other tokens: around it, the processes
exchange heads for tokens (DeepSpeed-Ulysses, arXiv 2309.14509, section 3.1), so that each computes attention over all
tokens with its share of the heads. Documents are whole there, so every kernel for packed documents works unchanged.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from open_r1.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class SequenceGroup:
    """This process is `rank` of the `size` processes that share a pack."""

    group: dist.ProcessGroup
    rank: int
    size: int

    def slice_of(self, tokens: int) -> slice:
        """This process's share of `tokens`, a multiple of `size`."""
        share = tokens // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def heads(self, x: Tensor) -> Tensor:
        """All tokens for this process's heads, `(T, H / size, D)`, from its tokens for all heads, `x (T / size, H, D)`.
        If H is not a multiple of `size`, heads are repeated first."""
        x = x.repeat_interleave(math.lcm(x.shape[1], self.size) // x.shape[1], dim=1)
        blocks = x.unflatten(1, (self.size, -1)).transpose(0, 1)
        return _Exchange.apply(blocks, self.group).flatten(0, 1)

    def tokens(self, x: Tensor) -> Tensor:
        """The inverse of `heads`: `(T / size, H, D)` from `x (T, H / size, D)`."""
        blocks = x.unflatten(0, (self.size, -1))
        return _Exchange.apply(blocks, self.group).transpose(0, 1).flatten(1, 2)

    def gather_objects(self, mine: T) -> list[T]:
        """The objects `mine` of all processes of the group."""
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, mine, group=self.group)
        return everyone

    def gather(self, values: Tensor, index: Tensor, count: int) -> Tensor:
        """`(count,)` values in every process; this one contributes `values` at `index`."""
        return _Gather.apply(values, index, count, self)


class _Exchange(torch.autograd.Function):
    """All-to-all: block j of `x (size, ...)` goes to process j, which stores the block from process i at i. The
    operation is its own transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        x = x.contiguous()
        received = torch.empty_like(x)
        dist.all_to_all_single(received, x, group=group)
        return received

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _Exchange.apply(grad, ctx.group), None


class _Gather(torch.autograd.Function):
    """Gathers values of which each process has a part; all processes then compute the same loss. The gradient is that
    of the process's own part times `size`, because gradients of weights are averaged over all processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, count: int, group: SequenceGroup) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = group.size
        whole = torch.zeros(count, dtype=values.dtype, device=values.device).index_copy_(0, index, values)
        dist.all_reduce(whole, group=group.group)
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (index,) = ctx.saved_tensors
        return grad.index_select(0, index) * ctx.size, None, None, None


@functools.cache
def sequence_group(size: int, device_type: str) -> SequenceGroup | None:
    """The group of this process: ranks of a group are consecutive. None if `size` is 1. Collective when first called.

    Raises UserError if `size` does not divide the number of processes.
    """
    if size == 1:
        return None
    processes = dist.get_world_size() if dist.is_initialized() else 1
    if processes % size:
        raise UserError(
            f"sequence_parallel_size is {size}, which does not divide the {processes} training "
            f"process{'es' if processes > 1 else ''}: start a multiple of {size}, or change it."
        )
    mesh = init_device_mesh(device_type, (processes // size, size), mesh_dim_names=("data", "sequence"))["sequence"]
    return SequenceGroup(mesh.get_group(), mesh.get_local_rank(), size)
