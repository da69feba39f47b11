"""Moves weights from a trainer to vLLM's workers: the trainer packs them into buckets, the workers load them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from open_r1.engine.vllm.group import GroupPlace, abandon, broadcast, open_group
from open_r1.internals.vllm import begin_reload, end_reload

ALIGNMENT = 16
"""Tensors start at multiples of this many bytes, which suits every element type."""


@dataclass(frozen=True)
class Entry:
    """A tensor in the buffer, from byte `start` on."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int


def pack(
    buffer: Tensor,
    named_tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    deliver: Callable[[list[Entry], int], None],
    larger: Callable[[int], Tensor],
) -> None:
    """Writes the tensors as `dtype` into `buffer` (uint8). Whenever it is full, and at the end, calls `deliver` with
    the entries and their total size in bytes. `larger` returns a buffer of the given size, for a tensor that does not
    fit."""
    bucket: list[Entry] = []
    used = end = 0
    for name, tensor in named_tensors:
        size = tensor.numel() * dtype.itemsize
        if used + size > len(buffer) and bucket:
            deliver(bucket, end)
            bucket, used = [], 0
        if size > len(buffer):
            buffer = larger(size)
        end = used + size
        buffer[used:end].view(dtype).copy_(tensor.detach().reshape(-1))
        bucket.append(Entry(name, str(dtype).removeprefix("torch."), tuple(tensor.shape), used))
        used = -(-end // ALIGNMENT) * ALIGNMENT
    if bucket:
        deliver(bucket, end)


class WeightReceiver:
    """Methods that vLLM adds to its worker class (`worker_extension_cls`). `/collective_rpc` calls them with JSON
    values."""

    device: torch.device
    model_runner: Any
    model_config: Any
    vllm_config: Any
    rank: int
    weights_version = 0
    _group: Any = None
    _buffer: Any = None

    def describe_weights(self) -> dict[str, Any]:
        """The properties of this worker that a trainer checks."""
        config = self.model_config.hf_text_config
        reports = getattr(self.vllm_config, "aux_output_config", self.model_config)  # vLLM 0.24: in the model's
        return {
            "version": self.weights_version,
            "dtype": str(self.model_config.dtype).removeprefix("torch."),
            "device": self.device.type,
            "logprobs_mode": str(getattr(self.model_config.logprobs_mode, "value", self.model_config.logprobs_mode)),
            "max_model_len": self.model_config.max_model_len,
            "shape": [config.hidden_size, config.num_hidden_layers, config.vocab_size],
            "experts": reports.enable_return_routed_experts,
        }

    def join_group(self, place: dict[str, Any]) -> None:
        """Joins the trainer's group. The rank in `place` is that of this server's first worker."""
        self.leave_group()
        mine = GroupPlace(**{**place, "rank": place["rank"] + self.rank})
        self._group = open_group(mine)
        self._buffer_device = self.device if mine.backend == "nccl" else torch.device("cpu")

    def leave_group(self) -> None:
        """Leaves the group, if there is one."""
        abandon(self._group)
        self._group = None

    def begin_weights(self) -> None:
        """Prepares for new weights, which follow in buckets."""
        self._rearranged = begin_reload(self.model_runner.get_model(), self.device)

    def receive_bucket(self, bucket: list[dict[str, Any]], used: int) -> None:
        """Receives `used` bytes and loads the tensors in them."""
        if self._buffer is None or len(self._buffer) < used:
            self._buffer = torch.empty(used, dtype=torch.uint8, device=self._buffer_device)
        broadcast(self._group, self._buffer[:used]).wait()
        weights = []
        for entry in (Entry(**fields) for fields in bucket):
            dtype = getattr(torch, entry.dtype)
            size = dtype.itemsize
            for length in entry.shape:
                size *= length
            tensor = self._buffer[entry.start : entry.start + size].view(dtype).view(entry.shape)
            # A layer that vLLM rearranges keeps its tensors until it has all of them, perhaps several buckets later.
            weights.append((entry.name, tensor.clone() if self._rearranged else tensor))
        with torch.device(self.device):
            self.model_runner.get_model().load_weights(weights)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def end_weights(self, version: int) -> None:
        """Finishes the update and frees the buffer."""
        if self._rearranged:
            end_reload(self.model_runner.get_model(), self.model_config, self.device)
        self._buffer = None
        self.weights_version = version

    def weights_checksum(self) -> dict[str, float]:
        """Sum of squares of all parameters, which does not depend on how they are fused. (On a CPU, vLLM packs some
        of them and they are missing.)"""
        return {"checksum": sum_of_squares(self.model_runner.get_model().parameters())}


def sum_of_squares(tensors: Iterable[Tensor]) -> float:
    """Sum of squares of all elements, in float64."""
    return sum(t.detach().double().square().sum().item() for t in tensors)
