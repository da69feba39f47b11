"""Weights from a trainer into vLLM, in buckets, through memory that both can see.

Trainer and engine share one flat buffer: on the GPU that both use (CUDA IPC), or a file in shared memory. The trainer
fills it with as many tensors as fit, the engine loads them, and so on. Nothing touches a disk, and no tensor's life
depends on the other process.
"""

import tempfile
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

BUCKET_BYTES = 2**30
ALIGNMENT = 16
"""Bytes: tensors start where any element type may."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor stands in the buffer: `start` in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int


Bucket = list[Entry]


@dataclass(frozen=True)
class Channel:
    """How the engine finds the buffer: a path, or what `torch` needs to open a CUDA IPC handle."""

    size: int
    path: str | None = None
    cuda: tuple[Any, ...] | None = None


class WeightSender:
    """The trainer's end: owns the buffer, of `device` where the engine shares that GPU, else in shared memory."""

    def __init__(self, device: torch.device | None, size: int = BUCKET_BYTES) -> None:
        self._path: Path | None = None
        if device is not None:
            self.buffer = torch.empty(size, dtype=torch.uint8, device=device)
            # (how to rebuild the tensor, with these arguments)
            self.channel = Channel(size, cuda=torch.multiprocessing.reductions.reduce_tensor(self.buffer)[1])
        else:
            shared = Path("/dev/shm")
            folder = shared if shared.is_dir() else Path(tempfile.gettempdir())
            self._path = folder / f"open_r1-weights-{uuid.uuid4().hex}"
            self.buffer = torch.from_file(str(self._path), shared=True, size=size, dtype=torch.uint8)
            self.channel = Channel(size, path=str(self._path))

    def send(
        self, named_tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype, deliver: Callable[[Bucket], None]
    ) -> None:
        """Writes the tensors as `dtype` into the buffer and calls `deliver` whenever it is full, and at the end."""
        pack(self.buffer, named_tensors, dtype, lambda bucket, used: self._deliver(bucket, deliver))

    def _deliver(self, bucket: Bucket, deliver: Callable[[Bucket], None]) -> None:
        if self.buffer.is_cuda:
            torch.cuda.synchronize(self.buffer.device)
        deliver(bucket)

    def close(self) -> None:
        """Gives the memory back."""
        del self.buffer
        if self._path is not None:
            self._path.unlink()


def pack(
    buffer: Tensor,
    named_tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    deliver: Callable[[Bucket, int], None],
    larger: Callable[[int], Tensor] | None = None,
) -> None:
    """Writes the tensors as `dtype` into `buffer` (bytes); calls `deliver` with what is in it, and how many bytes that
    are, whenever it is full, and at the end. `larger` makes a buffer for a tensor that this one has no room for."""
    bucket: Bucket = []
    used = end = 0
    for name, tensor in named_tensors:
        size = tensor.numel() * dtype.itemsize
        if used + size > len(buffer) and bucket:
            deliver(bucket, end)
            bucket, used = [], 0
        if size > len(buffer):
            if larger is None:
                raise ValueError(f"{name} needs {size:,} bytes, the buffer has {len(buffer):,}")
            buffer = larger(size)
        end = used + size
        buffer[used:end].view(dtype).copy_(tensor.detach().reshape(-1))
        bucket.append(Entry(name, str(dtype).removeprefix("torch."), tuple(tensor.shape), used))
        used = -(-end // ALIGNMENT) * ALIGNMENT
    if bucket:
        deliver(bucket, end)


def bucket_size(elements: Iterable[int], dtype: torch.dtype) -> int:
    """Bytes of a buffer for tensors of so many elements: all of them if they are few, at least the largest one."""
    sizes = [n * dtype.itemsize + ALIGNMENT for n in elements]
    return max(min(sum(sizes), BUCKET_BYTES), *sizes)


class WeightReceiver:
    """The engine's end: vLLM adds these methods to its worker class (`worker_extension_cls`)."""

    device: torch.device
    model_runner: Any
    model_config: Any

    def begin_weights(self, channel: Channel) -> None:
        """Opens the buffer; layers that vLLM rearranges after loading are made loadable again."""
        self._buffer = _open(channel, self.device)
        self._prepare_loading()

    def _prepare_loading(self) -> None:
        self._rearranged = not (self.device.type == "cuda" and _is_plain(self.model_runner.get_model()))
        if self._rearranged:
            from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

            with torch.device(self.device):
                initialize_layerwise_reload(self.model_runner.get_model())

    def load_bucket(self, bucket: Bucket) -> None:
        """Loads the tensors that the buffer holds now."""
        weights = []
        for entry in bucket:
            dtype = getattr(torch, entry.dtype)
            size = dtype.itemsize
            for length in entry.shape:
                size *= length
            tensor = self._buffer[entry.start : entry.start + size].view(dtype).view(entry.shape)
            # Layers that are rearranged keep what they get until they are whole, which may be buckets later.
            weights.append((entry.name, tensor.clone() if self._rearranged else tensor))
        with torch.device(self.device):
            self.model_runner.get_model().load_weights(weights)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def end_weights(self) -> None:
        """Finishes the layers and lets go of the buffer."""
        if self._rearranged:
            from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

            with torch.device(self.device):
                finalize_layerwise_reload(self.model_runner.get_model(), self.model_config)
            if self.device.type == "cpu":
                _pack_tied_head(self.model_runner.get_model())
        del self._buffer

    def checksum(self) -> float:
        """Sum of squares of all parameters, however they are fused, in float64. (On a CPU some are packed away.)"""
        return sum_of_squares(self.model_runner.get_model().parameters())


def sum_of_squares(tensors: Iterable[Tensor]) -> float:
    """Sum of squares of all elements, in float64."""
    return sum(t.detach().double().square().sum().item() for t in tensors)


def _open(channel: Channel, device: torch.device) -> Tensor:
    if channel.path is not None:
        return torch.from_file(channel.path, shared=True, size=channel.size, dtype=torch.uint8)
    arguments = list(channel.cuda or ())
    arguments[6] = device.index or 0  # the same GPU has another number where other GPUs are hidden
    return torch.multiprocessing.reductions.rebuild_cuda_tensor(*arguments)


def _pack_tied_head(model: nn.Module) -> None:
    """On a CPU vLLM computes the head from a packed copy, which it does not renew when the head is tied to the
    embedding: no weights of its own arrive."""
    for module in model.modules():
        if type(module).__name__ == "ParallelLMHead":
            method: Any = module.quant_method
            method.process_weights_after_loading(module)


def _is_plain(model: nn.Module) -> bool:
    """Whether vLLM keeps the weights as they were loaded, so that loading over them is enough: no mixture of experts,
    no quantization."""
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if method is not None and not type(method).__name__.startswith("Unquantized"):
            return False
        if "FusedMoE" in type(module).__name__ or hasattr(module, "w13_weight"):
            return False
    return True
