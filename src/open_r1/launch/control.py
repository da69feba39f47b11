"""How the nodes of a launch know of each other: who is there, whose servers are up, who has finished, what failed.

One `TCPStore` (PyTorch's own, as its rendezvous uses) on node 0. Marks are set once and never taken back.
"""

import json
import socket
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Protocol

from open_r1.errors import UserError
from open_r1.launch.processes import Failure
from open_r1.launch.store import Lost, Store

SILENCE_SECONDS = 60.0
"""Without a sign of life from a node for this long, it is taken for dead."""
GOODBYE_SECONDS = 30.0


class Control(Protocol):
    """What a node tells the others and asks of them."""

    def mark(self, name: str) -> None:
        """Says that this node has reached `name`."""

    def missing(self, name: str, nodes: range) -> list[int]:
        """Nodes that have not said so."""

    def fail(self, failure: Failure) -> Failure:
        """Tells of a failure; returns the one that came first."""

    def failure(self) -> Failure | None:
        """What has failed anywhere; also a node that has gone silent."""

    def close(self) -> None:
        """Leaves; node 0 stays until the others have left."""


class Alone:
    """The control of a single node."""

    def __init__(self) -> None:
        self._marks: set[str] = set()
        self._failure: Failure | None = None

    def mark(self, name: str) -> None:
        self._marks.add(name)

    def missing(self, name: str, nodes: range) -> list[int]:
        return [] if name in self._marks else [0]

    def fail(self, failure: Failure) -> Failure:
        self._failure = self._failure or failure
        return self._failure

    def failure(self) -> Failure | None:
        return self._failure

    def close(self) -> None:
        pass


class Together:
    """The control of several nodes; made on each of them, with the same `plan`, a text that says what will run."""

    def __init__(
        self,
        nodes: int,
        rank: int,
        head: str,
        port: int,
        plan: str,
        timeout: float,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self.nodes, self.rank, self._silence = nodes, rank, silence
        self._beats: dict[int, tuple[int, float]] = {}
        self._last_beat = 0.0
        self._silent: set[int] = set()
        began = time.monotonic()
        try:
            self._store = Store(head, port, rank == 0, timeout, silence)
        except Lost as error:
            if rank == 0:
                raise UserError(
                    f"port {port} (for the nodes to meet) cannot be opened here: give --main-port."
                ) from error
            raise UserError(
                f"node 0 ({head}, port {port}) did not answer within {timeout:.0f} s: is it up, does the same command "
                "run there, and does no firewall stand between?"
            ) from error
        try:
            self._store.set(f"host/{rank}", json.dumps({"host": socket.gethostname(), "plan": plan}))
            self._meet(plan, began + timeout, timeout)
        except Lost as error:
            raise UserError(f"node 0 ({head}) has gone: its own messages say why.") from error

    def _meet(self, plan: str, deadline: float, timeout: float) -> None:
        absent = self._missing_keys("host", range(self.nodes))
        while absent and time.monotonic() < deadline:
            time.sleep(0.1)
            absent = self._missing_keys("host", range(self.nodes))
        if absent:
            names = ", ".join(map(str, absent))
            raise UserError(
                f"node {names} of {self.nodes} did not come within {timeout:.0f} s; there are "
                f"{', '.join(self.host(n) for n in range(self.nodes) if n not in absent)}. Is it up, and does the same "
                "command run there?"
            )
        for node in range(self.nodes):
            if json.loads(self._store.get(f"host/{node}"))["plan"] != plan:
                raise UserError(
                    f"{self.host(node)} was started with another command or another version of the recipe than "
                    f"{self.host(self.rank)}: give all nodes the same."
                )

    def host(self, node: int) -> str:
        """A node in words."""
        try:
            return f"node {node} ({json.loads(self._store.get(f'host/{node}'))['host']})"
        except Lost:
            return f"node {node}"

    def tell(self, name: str, value: str) -> None:
        """Publishes a value of this node."""
        self._store.set(f"value/{name}/{self.rank}", value)

    def ask(self, name: str, node: int) -> str:
        """Waits for a value of another node."""
        try:
            return self._store.get(f"value/{name}/{node}")
        except Lost as error:
            raise UserError(f"{self.host(node)} did not say its {name}.") from error

    def mark(self, name: str) -> None:
        with suppress(Lost):  # `failure` tells of it
            self._store.set(f"{name}/{self.rank}", "1")

    def missing(self, name: str, nodes: range) -> list[int]:
        try:
            return self._missing_keys(name, nodes)
        except Lost:
            return list(nodes)

    def fail(self, failure: Failure) -> Failure:
        try:
            return _failure(self._store.set_first("failure", json.dumps(asdict(failure))))
        except Lost:
            return failure

    def failure(self) -> Failure | None:
        try:
            if self._store.has("failure"):
                return _failure(self._store.get("failure"))
            silent = self._silent_nodes()
        except Lost:
            return Failure("node 0", "node 0", 1, "has gone: the connection to it is lost")
        if silent:
            return self.fail(
                Failure(self.host(silent[0]), self.host(silent[0]), 1, f"silent for {self._silence:.0f} s")
            )
        return None

    def _silent_nodes(self) -> list[int]:
        """Beats for this node; node 0 listens to all others. A node that has left is not silent."""
        now = time.monotonic()
        if now - self._last_beat < 1.0:
            return []
        self._last_beat = now
        self._store.add(f"beat/{self.rank}", 1)
        if self.rank != 0:
            return []
        for node in range(1, self.nodes):
            count = self._store.add(f"beat/{node}", 0)
            if node not in self._beats or self._beats[node][0] != count:
                self._beats[node] = (count, now)
        quiet = {n for n, (_, when) in self._beats.items() if now - when > self._silence}
        self._silent = quiet & set(self.missing("left", range(self.nodes)))
        return sorted(self._silent)

    def close(self) -> None:
        deadline = time.monotonic() + GOODBYE_SECONDS
        self.mark("left")
        while self.rank == 0 and time.monotonic() < deadline:
            if set(self.missing("left", range(self.nodes))) <= self._silent:
                return
            time.sleep(0.1)

    def _missing_keys(self, name: str, nodes: range) -> list[int]:
        return [node for node in nodes if not self._store.has(f"{name}/{node}")]


def _failure(text: str) -> Failure:
    told = json.loads(text)
    return Failure(**told | {"last_lines": tuple(told["last_lines"])})
