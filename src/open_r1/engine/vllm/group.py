"""The process group that carries weights from a trainer to vLLM servers.

Rank 0 is the trainer's first process; the other ranks are the workers of all servers, on one host or several. The
backend is NCCL between GPUs, and gloo if one side is on a CPU. The group is independent of the default group of
`torch.distributed` on either side.
"""

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch import Tensor
from torch import distributed as dist

from open_r1.engine.vllm.addresses import address_towards
from open_r1.internals.torch import group_apart


@dataclass(frozen=True)
class GroupPlace:
    """Where the members of a group meet, and the rank of one of them."""

    address: str
    port: int
    rank: int
    size: int
    backend: str
    """`nccl` or `gloo`."""
    name: str
    """Must be unique for each group."""
    seconds: float
    """Timeout of every operation."""


def open_group(place: GroupPlace, listener: socket.socket | None = None) -> Any:
    """Opens the group as the member at `place`. Rank 0 passes the `listener` that the others connect to."""
    wait = timedelta(seconds=place.seconds)
    master: dict[str, Any] = {} if listener is None else {"master_listen_fd": listener.detach()}
    tcp = dist.TCPStore(place.address, place.port, None, bool(master), wait, wait_for_workers=False, **master)
    store = dist.PrefixStore(place.name, tcp)
    return group_apart(store, place.rank, place.size, place.backend, wait, address_towards(place.address))


def broadcast(group: Any, tensor: Tensor) -> Any:
    """Starts sending rank 0's `tensor` to all others, and returns the pending work."""
    options = dist.BroadcastOptions()
    options.rootRank = options.rootTensor = 0
    return group.broadcast([tensor], options)


def abandon(group: Any) -> None:
    """Aborts NCCL's pending work. Gloo detects on its own that other members are gone."""
    if type(group).__name__ == "ProcessGroupNCCL":
        group.abort()
