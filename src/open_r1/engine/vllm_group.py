"""Weights from a trainer into vLLM servers, in buckets, through a process group of their own.

The trainer's first process is rank 0 of the group and all workers of all servers are the others: NCCL between GPUs,
gloo where one side is a CPU; on one host or several. Both sides make the group without `torch.distributed`'s default
one, so nothing else on either side is disturbed.
"""

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from open_r1.engine.vllm_weights import Entry, WeightReceiver, pack, sum_of_squares

BUCKET_BYTES = 2**28
"""Of weights that are sent at a time; a larger tensor is a bucket of its own."""


@dataclass(frozen=True)
class GroupPlace:
    """Where a group meets, who a member is, and how its members talk."""

    address: str
    port: int
    rank: int
    size: int
    backend: str
    """`nccl` or `gloo`."""
    name: str
    """Of this group alone: a new group needs a new name."""
    seconds: float
    """Longest wait for the others."""


def open_group(place: GroupPlace, listener: socket.socket | None = None) -> Any:
    """The process group; its first member gives the `listener` where the others find it."""
    wait = timedelta(seconds=place.seconds)
    master: dict[str, Any] = {} if listener is None else {"master_listen_fd": listener.detach()}
    tcp = dist.TCPStore(place.address, place.port, None, bool(master), wait, wait_for_workers=False, **master)
    store = dist.PrefixStore(place.name, tcp)
    if place.backend == "nccl":
        nccl = dist.ProcessGroupNCCL.Options()
        nccl._timeout = wait
        return dist.ProcessGroupNCCL(store, place.rank, place.size, nccl)
    gloo: Any = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    gloo._devices = [dist.ProcessGroupGloo.create_device(hostname=address_towards(place.address))]
    gloo._timeout = wait
    return dist.ProcessGroupGloo(store, place.rank, place.size, gloo)  # type: ignore[call-arg, arg-type]


def broadcast(group: Any, tensor: Tensor) -> Any:
    """Rank 0's `tensor` to all others."""
    options = dist.BroadcastOptions()
    options.rootRank = options.rootTensor = 0
    return group.broadcast([tensor], options)


def abandon(group: Any) -> None:
    """Ends what NCCL still waits for; gloo notices by itself that others are gone."""
    if type(group).__name__ == "ProcessGroupNCCL":
        group.abort()


def address_towards(host: str) -> str:
    """This machine's address on the interface through which it reaches `host`: loopback for itself."""
    family, _, _, _, target = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)
        return probe.getsockname()[0]


def listen(address: str, port: int) -> socket.socket:
    """A listener on that interface only; on a port of the system's choice where `port` is taken."""
    family = socket.getaddrinfo(address, None)[0][0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError:
        listener.bind((address, 0))
    listener.listen(512)
    return listener


class GroupWeightReceiver(WeightReceiver):
    """The server's end: vLLM adds these methods to its worker class (`worker_extension_cls`), and `/collective_rpc`
    calls them with what JSON can hold."""

    rank: int
    weights_version = 0
    _group: Any = None
    _buffer: Any = None

    def describe_weights(self) -> dict[str, Any]:
        """What a trainer must know."""
        config = self.model_config.hf_text_config
        return {
            "version": self.weights_version,
            "dtype": str(self.model_config.dtype).removeprefix("torch."),
            "device": self.device.type,
            "logprobs_mode": str(getattr(self.model_config.logprobs_mode, "value", self.model_config.logprobs_mode)),
            "max_model_len": self.model_config.max_model_len,
            "shape": [config.hidden_size, config.num_hidden_layers, config.vocab_size],
        }

    def join_group(self, place: dict[str, Any]) -> None:
        """Meets the trainer; `place` has the rank of this server's first worker."""
        self.leave_group()
        mine = GroupPlace(**{**place, "rank": place["rank"] + self.rank})
        self._group = open_group(mine)
        self._buffer_device = self.device if mine.backend == "nccl" else torch.device("cpu")

    def leave_group(self) -> None:
        """Leaves the group, if there is one."""
        abandon(self._group)
        self._group = None

    def begin_group_weights(self) -> None:
        """New weights follow, in buckets."""
        self._prepare_loading()

    def receive_bucket(self, bucket: list[dict[str, Any]], used: int) -> None:
        """Receives `used` bytes and loads the tensors that are in them."""
        if self._buffer is None or len(self._buffer) < used:
            self._buffer = torch.empty(used, dtype=torch.uint8, device=self._buffer_device)
        broadcast(self._group, self._buffer[:used]).wait()
        self.load_bucket([Entry(**entry) for entry in bucket])

    def end_group_weights(self, version: int) -> None:
        """The new weights are complete. (The buffer's memory is the cache's again: nothing is kept of it.)"""
        self.end_weights()
        self._buffer = None
        self.weights_version = version

    def weights_checksum(self) -> dict[str, float]:
        """Sum of squares of all parameters, as JSON can hold it."""
        return {"checksum": sum_of_squares(self.model_runner.get_model().parameters())}


class GroupSender:
    """The trainer's end of a group. `call(method, *arguments)` begins a call of all servers' workers and returns a
    function that tells whether it is done, and raises what went wrong there."""

    def __init__(self, place: GroupPlace, listener: socket.socket, device: torch.device) -> None:
        self.group = open_group(place, listener)
        where = device if place.backend == "nccl" else torch.device("cpu")
        self.buffer = torch.empty(BUCKET_BYTES, dtype=torch.uint8, device=where)

    def send(
        self, tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype, call: Callable[..., Callable[[], bool]]
    ) -> None:
        """Sends all tensors as `dtype`; each is read once and kept no longer than until the next."""
        wait_for([call("begin_group_weights")])

        def larger(size: int) -> Tensor:
            self.buffer = torch.empty(size, dtype=torch.uint8, device=self.buffer.device)
            return self.buffer

        def deliver(bucket: list[Entry], used: int) -> None:
            done = call("receive_bucket", [asdict(entry) for entry in bucket], used)
            work = broadcast(self.group, self.buffer[:used])
            wait_for([done, work.is_completed])
            if self.buffer.is_cuda:
                torch.cuda.synchronize(self.buffer.device)

        pack(self.buffer, tensors, dtype, deliver, larger)

    def close(self) -> None:
        """Leaves the group, also where others are gone."""
        abandon(self.group)


def wait_for(conditions: Iterable[Callable[[], bool]]) -> None:
    """Waits for all; each raises what went wrong on its side, while others would wait for ever."""
    pending = list(conditions)
    while pending := [condition for condition in pending if not condition()]:
        time.sleep(0.0005)
