"""The process group through which weights go from a trainer to vLLM servers.

The trainer's first process is rank 0 of the group and all workers of all servers are the others: NCCL between GPUs,
gloo where one side is a CPU; on one host or several. Both sides make the group without `torch.distributed`'s default
one, so nothing else on either side is disturbed.
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
    """Where a group meets, the rank of a member, and the backend."""

    address: str
    port: int
    rank: int
    size: int
    backend: str
    """`nccl` or `gloo`."""
    name: str
    """Unique: a new group needs a new name."""
    seconds: float
    """Timeout."""


def open_group(place: GroupPlace, listener: socket.socket | None = None) -> Any:
    """The process group; its first member passes the `listener` that the others connect to."""
    wait = timedelta(seconds=place.seconds)
    master: dict[str, Any] = {} if listener is None else {"master_listen_fd": listener.detach()}
    tcp = dist.TCPStore(place.address, place.port, None, bool(master), wait, wait_for_workers=False, **master)
    store = dist.PrefixStore(place.name, tcp)
    return group_apart(store, place.rank, place.size, place.backend, wait, address_towards(place.address))


def broadcast(group: Any, tensor: Tensor) -> Any:
    """Rank 0's `tensor` to all others."""
    options = dist.BroadcastOptions()
    options.rootRank = options.rootTensor = 0
    return group.broadcast([tensor], options)


def abandon(group: Any) -> None:
    """Aborts NCCL's pending work; gloo notices by itself that other members are gone."""
    if type(group).__name__ == "ProcessGroupNCCL":
        group.abort()
