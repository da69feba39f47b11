"""Sends weights, in buckets, to vLLM servers: the trainer's side of the process group."""

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict

import torch
from torch import Tensor

from open_r1.engine.vllm.group import GroupPlace, abandon, broadcast, open_group
from open_r1.engine.vllm.weights import Entry, pack

BUCKET_BYTES = 2**28
"""Size of a bucket of weights. A larger tensor is a bucket of its own."""


class GroupSender:
    """The trainer's side of a group, at `place`; `listener` is the socket that the servers connect to."""

    def __init__(self, place: GroupPlace, listener: socket.socket, device: torch.device) -> None:
        self.group = open_group(place, listener)
        where = device if place.backend == "nccl" else torch.device("cpu")
        self.buffer = torch.empty(BUCKET_BYTES, dtype=torch.uint8, device=where)

    def send(
        self, tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype, call: Callable[..., Callable[[], bool]]
    ) -> None:
        """Sends all tensors as `dtype`, holding one at a time.

        `call(method, *arguments)` starts a call of all servers' workers. It returns a function that says whether the
        call is done, and raises its error.
        """
        wait_for([call("begin_weights")])

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
        """Leaves the group, even if other members are gone."""
        abandon(self.group)


def wait_for(conditions: Iterable[Callable[[], bool]]) -> None:
    """Waits until all conditions are true. A condition that fails raises, which ends the wait for the others."""
    pending = list(conditions)
    while pending := [condition for condition in pending if not condition()]:
        time.sleep(0.0005)
