"""Shares the state of a launch between its nodes: which nodes are up, have generators that answer, finished or failed.

A few times per second, each node writes its own state into a PyTorch store on node 0 and reads the states of the
others. A thread does this, because a call to a `TCPStore` can block forever if its host is gone.

torchrun's agents use such a store, too, but they do not report which process failed, notice a node without network only
when a collective times out, and know nothing about generators.
"""

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

from open_r1.errors import UserError
from open_r1.processes.child import Failure

SILENCE_SECONDS = 60.0
"""Seconds after which a node that has published nothing counts as dead."""
GOODBYE_SECONDS = 30.0
CONNECT_SLACK = 5.0
EXCHANGE_SECONDS = 0.25


@dataclass(frozen=True)
class NodeState:
    """What a node publishes."""

    host: str
    plan: str
    """Hash of the plan that it will run."""
    values: dict[str, str] = field(default_factory=dict)
    """Values by name. The milestones serving, finished and left have no content."""
    beat: int = 0
    """Counts the exchanges."""


class Control:
    """One node's view of all nodes of a launch. Without arguments: a single node.

    Every node passes the same `plan`, a text that describes the run. Raises `UserError` if the nodes do not connect
    within `timeout` seconds, or if their plans differ.
    """

    def __init__(
        self,
        nodes: int = 1,
        rank: int = 0,
        head: str = "localhost",
        port: int = 0,
        plan: str = "",
        timeout: float = 60.0,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self.nodes, self.rank, self._silence = nodes, rank, silence
        self._own = self._published = NodeState(socket.gethostname(), sha256(plan.encode()).hexdigest())
        self._own_failure: Failure | None = None
        self._closed = False
        # Written by the exchanging thread.
        self._states: dict[int, NodeState] = {}
        self._changed: dict[int, float] = {}
        self._failure: Failure | None = None
        self._contact: float | None = None
        """When the last exchange ended."""
        self._disconnected = False
        threading.Thread(target=self._exchange_forever, args=(head, port, timeout), daemon=True).start()
        self._meet(head, port, timeout)

    def publish(self, name: str, value: str = "") -> None:
        """Publishes a value of this node, or that it has reached the milestone `name`."""
        self._own = replace(self._own, values={**self._own.values, name: value})

    def missing(self, name: str, nodes: range) -> list[int]:
        """Nodes that have not published `name`."""
        return [node for node in nodes if name not in self._state(node).values]

    def value(self, name: str, node: int) -> str:
        """A value of another node, once it has published it."""
        if not self._wait(lambda: not self.missing(name, range(node, node + 1)), self._silence):
            raise UserError(f"{self.host(node)} did not publish its {name}.")
        return self._state(node).values[name]

    def fail(self, failure: Failure) -> Failure:
        """Publishes a failure; returns the one that was published first."""
        self._own_failure = self._own_failure or failure
        self._wait(lambda: self._failure is not None, self._silence)
        return self._failure or failure

    def failure(self) -> Failure | None:
        """The first failure on any node, including a node that has gone silent."""
        if self._failure is None and self._lost():
            return Failure("node 0", "node 0", 1, "has gone: the connection to it is lost")
        if self._failure is None and (silent := self._silent()):
            name = self.host(min(silent))
            return self.fail(Failure(name, name, 1, f"silent for {self._silence:.0f} s"))
        return self._failure

    def host(self, node: int) -> str:
        """The name of a node in messages."""
        return f"node {node} ({self._states[node].host})" if node in self._states else f"node {node}"

    def close(self) -> None:
        """Leaves. Node 0, which has the store, stays until the others have left."""
        self.publish("left")
        self._wait(lambda: self._published is self._own, GOODBYE_SECONDS)
        if self.rank == 0:
            self._wait(lambda: set(self.missing("left", range(self.nodes))) <= self._silent(), GOODBYE_SECONDS)
        self._closed = True

    def _meet(self, head: str, port: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if not self._wait(lambda: self._contact is not None, timeout + CONNECT_SLACK):
            raise UserError(
                f"cannot open port {port}, where the nodes meet: give another one with --main-port."
                if self.rank == 0
                else f"node 0 ({head}, port {port}) did not answer within {timeout:.0f} s: is it up, does the same "
                "command run there, and does a firewall block the port?"
            )
        if not self._wait(lambda: len(self._states) == self.nodes, deadline - time.monotonic()):
            if self._lost():
                raise UserError(f"the connection to node 0 ({head}) is lost: its own messages say why.")
            absent = ", ".join(str(node) for node in range(self.nodes) if node not in self._states)
            raise UserError(
                f"node {absent} of {self.nodes} did not join within {timeout:.0f} s. The others: "
                f"{', '.join(map(self.host, sorted(self._states)))}. Is it up, and does the same command run there?"
            )
        for node, state in self._states.items():
            if state.plan != self._own.plan:
                raise UserError(
                    f"{self.host(node)} runs another command or another version of the recipe than "
                    f"{self.host(self.rank)}: start the same one on all nodes."
                )

    def _state(self, node: int) -> NodeState:
        return self._own if node == self.rank else self._states[node]

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition became true in time, and before the connection was lost."""
        deadline = time.monotonic() + seconds
        while not condition() and not self._lost() and time.monotonic() < deadline:
            time.sleep(0.05)
        return condition()

    def _lost(self) -> bool:
        """Whether the connection to node 0 is lost."""
        if self._disconnected or self._contact is None:
            return self._disconnected
        return self.rank != 0 and time.monotonic() - self._contact > self._silence

    def _silent(self) -> set[int]:
        """Nodes that have gone silent without leaving; only node 0 decides this."""
        if self.rank != 0 or self._contact is None:
            return set()
        quiet = {node for node, changed in self._changed.items() if self._contact - changed > self._silence}
        return quiet & set(self.missing("left", range(self.nodes)))

    def _exchange_forever(self, head: str, port: int, timeout: float) -> None:
        """The thread."""
        keys = [*(f"node {node}" for node in range(self.nodes)), "failure"]
        try:
            with suppress(RuntimeError):  # PyTorch's network and store errors
                store = self._open_store(head, port, timeout)
                for key in keys if self.rank == 0 else ():
                    store.compare_set(key, "", "null")
                for beat in itertools.count():
                    self._exchange(store, keys, beat)
                    if self._closed:
                        break
                    time.sleep(EXCHANGE_SECONDS)
        finally:
            self._disconnected = True

    def _open_store(self, head: str, port: int, timeout: float) -> Any:
        from torch.distributed import HashStore, TCPStore

        if self.nodes == 1:
            return HashStore()
        seconds = timedelta(seconds=timeout)
        return TCPStore(head, port, is_master=self.rank == 0, timeout=seconds, wait_for_workers=False)

    def _exchange(self, store: Any, keys: list[str], beat: int) -> None:
        own, failure = self._own, self._own_failure
        store.set(keys[self.rank], json.dumps(asdict(replace(own, beat=beat))))
        if failure is not None:
            store.compare_set("failure", "null", json.dumps(asdict(failure)))
        *states, first = map(json.loads, store.multi_get(keys))
        now = time.monotonic()
        for node, state in enumerate(states):
            if state is not None and (node not in self._states or state["beat"] != self._states[node].beat):
                self._changed[node] = now
                self._states[node] = NodeState(**state)
        if first is not None:
            self._failure = Failure(**first | {"last_lines": tuple(first["last_lines"])})
        self._published, self._contact = own, now
