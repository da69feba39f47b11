"""Runs a launch on one node: starts generators and training, watches them and the other nodes, and stops them all."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from open_r1.engine.vllm.process import ServerCommand, ServerTimeout, wait_until_up
from open_r1.errors import LOST_PEER
from open_r1.launch.control import Control
from open_r1.processes.child import ChildProcess, Command, Failure, stop_all
from open_r1.run.generators import TIMEOUT_OPTION, say

POLL_SECONDS = 0.2
STOPPED_STATUS = 75
"""Exit status of training that saved a checkpoint after a signal; the same command continues it."""
REMEDY = " Run the same command to continue from the last checkpoint."
"""For processes that were killed, or lost another one: nothing has to be corrected."""
KILLED_LINES = 5
"""Last lines shown of a process that was killed, which say nothing about the reason."""
LOST = (LOST_PEER, 128 + signal.SIGABRT)
"""Exit statuses of training processes that lost another one; NCCL aborts those that wait in a collective."""
LOST_SECONDS = 45.0
"""Seconds to wait, after training has lost a process, for the node of that process to report it. The agent there first
ends its other processes."""
CAUSE_SECONDS = 7.0
"""Seconds to wait, after training has failed, for the failure of a generator that may have caused it. The generator's
guard first ends what it has left behind, which takes seconds on a GPU."""


@dataclass(frozen=True)
class NodePlan:
    """What this node runs."""

    name: str
    """Its name in messages."""
    servers: tuple[ServerCommand, ...]
    training: Callable[[], Command] | None
    """Called when all generators are up; None on a node that only generates."""
    training_nodes: range
    server_nodes: range
    server_timeout: float
    """Seconds until generators must answer."""
    stop_grace: float
    """Seconds that training has to save a checkpoint after SIGTERM."""


class NodeRun:
    """One launch on one node. `run` returns its exit status."""

    def __init__(self, plan: NodePlan, control: Control) -> None:
        self.plan, self.control = plan, control
        self.children: list[ChildProcess] = []
        self.training: ChildProcess | None = None
        self._signals: list[signal.Signals] = []
        self._deadline: float | None = None

    def run(self) -> int:
        """Exit status: 0, that of the process that failed first on any node, or 128 plus a signal's number."""
        with self._handling_signals():
            try:
                failure = self._start_servers() or self._start_training() or self._watch()
            finally:
                stopped = self._stop_all()
        if failure is None and stopped:
            return stopped
        if failure is not None:
            self._report(failure)
            return failure.status
        return 0

    # The three phases; each returns the first failure, if any

    def _start_servers(self) -> Failure | None:
        plan = self.plan
        servers = [server.start() for server in plan.servers]
        self.children += servers
        for server in servers:
            say(f"{server.name}: starting; its log is {server.log}.")
        try:
            for _ in wait_until_up(servers, plan.server_timeout, say, TIMEOUT_OPTION):
                if (failure := self._failed()) or self._signals:
                    return failure
        except ServerTimeout as late:
            return self.control.fail(late.server.failure(plan.name, late.reason))
        self.control.publish("serving")
        while self.control.missing("serving", plan.server_nodes):
            if (failure := self._failed()) or self._signals:
                return failure
            time.sleep(POLL_SECONDS)
        return None

    def _start_training(self) -> Failure | None:
        if self.plan.training is not None and not self._signals:
            command = self.plan.training()
            self.training = ChildProcess("training", command.argv, command.environment)
            self.children.append(self.training)
        return None

    def _watch(self) -> Failure | None:
        finished = False
        while not self._out_of_time():
            if failure := self._failed():
                return failure
            if self.training is not None and self.training.poll() == 0 and not finished:
                finished = True
                self.control.publish("finished")
            if not self.control.missing("finished", self.plan.training_nodes):
                return None
            time.sleep(POLL_SECONDS)
        return None

    def _failed(self) -> Failure | None:
        """The first failure, here or on another node."""
        failed = self._generator_failure()
        if failed is None and self.training is not None and self.training.poll():
            failed = self._wait_for_cause() or self.control.fail(self.training.failure(self.plan.name))
        return failed or self.control.failure()

    def _generator_failure(self) -> Failure | None:
        ended = next((c for c in self.children if c is not self.training and c.poll() is not None), None)
        return None if ended is None else self.control.fail(ended.failure(self.plan.name))

    def _wait_for_cause(self) -> Failure | None:
        """The failure, of a generator or of another node, that made training fail here. Training can fail first: the
        guard of a generator reports its exit only after it has ended the processes that the generator left behind."""
        code = self.training.poll() if self.training is not None else None
        seconds = CAUSE_SECONDS if self.plan.server_nodes and code not in (STOPPED_STATUS, 130) else 0.0
        if code in LOST and len(self.plan.training_nodes) > 1:
            seconds = LOST_SECONDS
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._out_of_time():
            if failure := self._generator_failure() or self.control.failure():
                return failure
            time.sleep(POLL_SECONDS)
        return None

    # Signals

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number)
        training = self.training is not None and self.training.poll() is None
        if name == signal.SIGUSR1 and not training:
            return
        repeated = name == signal.SIGINT and name in self._signals
        self._signals.append(name)
        if training and self.training is not None:
            self.training.signal_workers(name)
        if not training or repeated:
            self._deadline = time.monotonic()
        elif name != signal.SIGUSR1 and self._deadline is None:
            self._deadline = time.monotonic() + self.plan.stop_grace

    def _out_of_time(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    # The end

    def _stop_all(self) -> int:
        """Ends every child; returns the exit status if a signal ended the run, else 0."""
        stop_all(self.children)
        final = [s for s in self._signals if s != signal.SIGUSR1]
        if final and self.control.missing("finished", self.plan.training_nodes):
            status = 128 + final[0]
            self.control.fail(Failure(self.plan.name, self.plan.name, status, f"was stopped by {final[0].name}"))
            self.control.close()
            return status
        self.control.close()
        return 0

    def _report(self, failure: Failure) -> None:
        where = "" if failure.node in (failure.process, "this node") else f" on {failure.node}"
        if failure.exit_code in (STOPPED_STATUS, 130):
            print(
                f"Stopped: {failure.process}{where} {failure.reason}. Run the same command to continue.",
                file=sys.stderr,
            )
            return
        remedy = REMEDY if failure.exit_code == LOST_PEER or failure.exit_code > 128 else ""
        print(
            f"\nerror: {failure.process}{where} {failure.reason}; everything else was stopped.{remedy}", file=sys.stderr
        )
        if failure.last_lines and not (failure.printed and failure.node == self.plan.name):
            lines = failure.last_lines[-KILLED_LINES if failure.exit_code > 128 else 0 :]
            print("Its last lines:", file=sys.stderr)
            print("\n".join(f"  {line}" for line in lines), file=sys.stderr, flush=True)
