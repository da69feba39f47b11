"""Determines the rank of this node, from Slurm's variables or from options, and the ports of a launch."""

import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from open_r1.engine.vllm.addresses import free_port, port_is_free
from open_r1.errors import UserError
from open_r1.launch.layout import Ports

BATCH_STEP = "4294967291"
"""SLURM_STEP_ID of a batch script, which runs on the first node only."""
PORTS_PER_JOB = 16


@dataclass(frozen=True)
class Place:
    """This node among those of the run."""

    nodes: int
    rank: int
    addresses: tuple[str, ...]
    """Where the other nodes reach each node; without Slurm only the first is known."""
    job: int | None = None
    """Slurm's number of the job."""

    @property
    def head(self) -> str:
        return self.addresses[0]


def find_place(nodes: int | None, rank: int | None, head: str | None, environment: Mapping[str, str]) -> Place:
    """From options, else from Slurm, else this machine alone. Raises UserError if they contradict each other."""
    steps = int(environment.get("SLURM_STEP_NUM_NODES", "1"))
    allocated = int(environment.get("SLURM_JOB_NUM_NODES", "1"))
    in_step = environment.get("SLURM_STEP_ID", BATCH_STEP) != BATCH_STEP and "SLURM_NODEID" in environment
    job = int(environment["SLURM_JOB_ID"]) if environment.get("SLURM_JOB_ID", "").isdigit() else None
    if rank is not None or head is not None:
        return _from_options(nodes, rank, head)
    if nodes is None and not in_step and allocated > 1:
        raise UserError(
            f"this job has {allocated} nodes, but this command runs only on the first one: use `srun --ntasks-per-"
            "node=1 open-r1 launch ...`, or give --nodes 1."
        )
    if not in_step or nodes == 1:
        if (nodes or 1) > 1:
            raise UserError(
                f"--nodes is {nodes}: run the same command on each of them with --node-rank 0 to {(nodes or 1) - 1} "
                "and --head <address of node 0>, or under Slurm with srun."
            )
        return Place(1, 0, ("127.0.0.1",), job)
    if nodes is not None and nodes != steps:
        raise UserError(f"--nodes is {nodes}, but srun started {steps}: omit --nodes, or give both the same number.")
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) != steps:
        raise UserError(
            f"srun started {environment['SLURM_STEP_NUM_TASKS']} tasks on {steps} nodes, but open-r1 launch runs "
            "once per node: give srun --ntasks-per-node=1."
        )
    node_list = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
    addresses = ("127.0.0.1",) if steps == 1 else tuple(map(address_of, host_names(node_list)))
    return Place(steps, int(environment["SLURM_NODEID"]), addresses, job)


def choose_ports(place: Place, main: int | None, server: int | None, servers: int) -> Ports:
    """The given ports, and defaults for the others: free ones on a single node; on several, where all nodes must choose
    the same without communicating, ports derived from the number of the Slurm job."""
    if place.nodes == 1:
        main = free_port(29500) if main is None else main
        return Ports(main=main, control=0, server=free_port(8000, servers) if server is None else server)
    first = 29500 if place.job is None else 15000 + place.job % 1000 * PORTS_PER_JOB
    main = main if main is not None else first
    return Ports(main=main, control=main + 1, server=server if server is not None else main + 3)


def check_port(port: int, what: str, option: str) -> None:
    """Raises UserError if a server cannot listen there."""
    if not port_is_free(port):
        raise UserError(f"port {port} ({what}) is in use on {socket.gethostname()}: free it, or give {option}.")


def _from_options(nodes: int | None, rank: int | None, head: str | None) -> Place:
    if nodes is None or rank is None or head is None:
        raise UserError(
            "--nodes, --node-rank and --head go together: give all three, with the same --head on each node."
        )
    if not 0 <= rank < nodes:
        raise UserError(f"--node-rank is {rank}: expected 0 to {nodes - 1}, because --nodes is {nodes}.")
    with suppress(OSError):
        socket.getaddrinfo(head, None)
        return Place(nodes, rank, (head,) + ("",) * (nodes - 1))
    raise UserError(f"--head is {head}, which this machine cannot resolve: give the name or address of node 0.")


def host_names(node_list: str) -> list[str]:
    """The names in a list as Slurm writes it, such as gpu[1-3]."""
    if not any(c in node_list for c in "[,"):
        return [node_list]
    if shutil.which("scontrol") is None:
        raise UserError(
            f"scontrol is not on PATH, so Slurm's node list {node_list} cannot be read: add Slurm's programs to PATH."
        )
    done = subprocess.run(["scontrol", "show", "hostnames", node_list], capture_output=True, text=True, check=True)
    return done.stdout.split()


def address_of(host: str) -> str:
    """The host's name where it can be resolved, else the address that Slurm has for it."""
    with suppress(OSError):
        socket.getaddrinfo(host, None)
        return host
    node = subprocess.run(["scontrol", "--oneliner", "show", "node", host], capture_output=True, text=True).stdout
    return next((w.removeprefix("NodeAddr=") for w in node.split() if w.startswith("NodeAddr=")), host)
