"""One node's share of a server over Ray: all nodes of the job form a Ray cluster, and the server runs on the first one.

`ray symmetric-run` is meant for this, but exits with 0 when Ray does not start, does not notice that another node has
died, and ends with `ray stop`, which also stops the Ray processes of the user's other jobs on the node.
"""

import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress

from open_r1.engine.vllm.addresses import address_towards
from open_r1.launch.control import Control
from open_r1.launch.nodes import Place
from open_r1.launch.slurm.job import Job
from open_r1.launch.slurm.server import ServerPlan, server_command, server_port, vllm_programs
from open_r1.processes.child import ChildProcess, Failure, stop_all

POLL_SECONDS = 0.5
MEETING_SECONDS = 300.0
"""How long the nodes wait for each other."""


class RayNode:
    """This node of the cluster. `run` returns its exit status."""

    def __init__(self, plan: ServerPlan, job: Job, place: Place) -> None:
        self.plan, self.job, self.place = plan, job, place
        port = server_port(plan, job)
        self.gcs_port, self.client_port = port + 1, port + 3
        self.control = Control(place.nodes, place.rank, place.head, port + 2, repr(plan), MEETING_SECONDS)
        self.name = self.control.host(place.rank)
        self.head, self.own = self._addresses()
        self.children: list[ChildProcess] = []

    def run(self, environment: Mapping[str, str]) -> int:
        """Runs until a process on any node ends; the exit status is that of the process."""
        variables = {**environment, "RAY_USAGE_STATS_ENABLED": "0", "VLLM_HOST_IP": self.own}
        try:
            failure = self._serve(variables) if self.place.rank == 0 else self._join(variables)
        finally:
            stop_all(self.children)
            self.control.close()
        where = "" if failure.node == failure.process else f" on {failure.node}"
        print(f"error: {failure.process}{where} {failure.reason}; everything else was stopped.", file=sys.stderr)
        return failure.status

    def _serve(self, variables: dict[str, str]) -> Failure:
        """On the first node: Ray, and the server once all nodes have joined."""
        self.children.append(ChildProcess("Ray", self._ray_command(), variables))
        if failure := self._watch(self._all_joined):
            return failure
        print(f"All {self.place.nodes} nodes have joined Ray. Starting the server.", flush=True)
        variables = {**variables, "RAY_ADDRESS": f"{self.head}:{self.gcs_port}"}
        self.children.append(ChildProcess("the server", server_command(self.plan, self.job, 0, self.head), variables))
        return self._watch_to_the_end()

    def _join(self, variables: dict[str, str]) -> Failure:
        """On another node: Ray, once that of the first node takes connections."""
        if failure := self._watch(self._gcs_answers):
            return failure
        self.children.append(ChildProcess("Ray", self._ray_command(), variables))
        return self._watch_to_the_end()

    def _watch_to_the_end(self) -> Failure:
        failure = self._watch(lambda: False)
        assert failure is not None
        return failure

    def _watch(self, reached: Callable[[], bool]) -> Failure | None:
        """Waits until `reached()`, or returns the first failure, here or on another node."""
        while not reached():
            ended = next((child for child in reversed(self.children) if child.poll() is not None), None)
            if failure := self.control.fail(ended.failure(self.name)) if ended else self.control.failure():
                return failure
            time.sleep(POLL_SECONDS)
        return None

    def _all_joined(self) -> bool:
        return alive_nodes(self.plan.dashboard) == self.place.nodes

    def _addresses(self) -> tuple[str, str]:
        """The IP addresses of the first node and of this one, as the other nodes reach them: the first node may know
        its own name as 127.0.1.1."""
        if self.place.rank == 0:
            head = self.control.value("head", 1)
            return head, head
        head = socket.gethostbyname(self.place.head)
        self.control.publish("head", head)
        return head, address_towards(head)

    def _ray_command(self) -> list[str]:
        """`ray start`. Ports are the job's own or free ones, so that jobs can share a node."""
        gpus = self.job.gpus_per_node
        command = [str(vllm_programs(os.environ) / "ray"), "start", "--block", "--disable-usage-stats"]
        command += [f"--node-ip-address={self.own}", *([f"--num-gpus={gpus}"] if gpus else [])]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        if self.place.rank:
            return [*command, f"--address={self.head}:{self.gcs_port}"]
        command += ["--head", f"--port={self.gcs_port}", f"--ray-client-server-port={self.client_port}"]
        return [*command, "--include-dashboard=true", f"--dashboard-port={self.plan.dashboard}"]

    def _gcs_answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.head, self.gcs_port), timeout=2.0):
            return True
        return False


def alive_nodes(dashboard: int | None) -> int:
    """How many nodes Ray's dashboard on this machine knows to be alive; 0 if it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    token = os.environ.get("RAY_AUTH_TOKEN")
    opener.addheaders = [("Authorization", f"Bearer {token}")] if token else []
    try:
        with opener.open(f"http://127.0.0.1:{dashboard}/api/v0/nodes", timeout=5.0) as reply:
            nodes = json.load(reply)["data"]["result"]["result"]
    except (OSError, ValueError):
        return 0
    return sum(node["state"] == "ALIVE" for node in nodes)
