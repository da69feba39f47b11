"""Nodes of a launch on this machine, whose parts are small commands: forked, so that torch is not imported again.

Settings: TRAINING_<rank> (Python text; none: the node only generates), SERVER_<rank> (seconds until it answers),
SERVER_TIMEOUT, SILENCE, START, PLAN_<rank>.
"""

import os
import socket
import sys
import tempfile
from pathlib import Path

from open_r1.engine.vllm.process import ServerCommand
from open_r1.errors import UserError
from open_r1.launch.control import Control
from open_r1.launch.node_run import NodePlan, NodeRun
from open_r1.processes.child import Command

SERVER = str(Path(__file__).parent / "fake_server.py")


class ForkedNode:
    """A node in a process of its own; its output goes to a file."""

    def __init__(self, port: int, nodes: int, rank: int, settings: dict[str, object], output: Path) -> None:
        self.output = output
        self.pid = os.fork()
        if self.pid == 0:
            _become(output)
            code = 70
            try:
                code = run_node(port, nodes, rank, {k: str(v) for k, v in settings.items()})
            finally:
                sys.stdout.flush()
                os._exit(code)

    def wait(self) -> tuple[int, str]:
        """Exit status (128 plus a signal's number) and output."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code if code >= 0 else 128 - code, self.output.read_text()


def _become(output: Path) -> None:
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for target in (1, 2):
        os.dup2(fd, target)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115


def run_node(port: int, nodes: int, rank: int, env: dict[str, str]) -> int:
    try:
        control = Control(
            nodes,
            rank,
            "127.0.0.1",
            port,
            env.get(f"PLAN_{rank}", "the plan"),
            float(env.get("START", "60")),
            float(env.get("SILENCE", "60")),
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    servers, training = (), None
    if f"SERVER_{rank}" in env:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            place = s.getsockname()[1]
        words = (sys.executable, SERVER, str(place), f"late={env[f'SERVER_{rank}']}")
        log = Path(tempfile.mkstemp()[1])
        servers = (ServerCommand("generator", Command(words, {}), f"http://127.0.0.1:{place}", log),)
    if f"TRAINING_{rank}" in env:
        command = Command((sys.executable, "-c", env[f"TRAINING_{rank}"]), {})
        training = lambda: command  # noqa: E731
    trainers = sum(f"TRAINING_{r}" in env for r in range(nodes))
    generators = [r for r in range(nodes) if f"SERVER_{r}" in env]
    node = NodePlan(
        name=control.host(rank),
        servers=servers,
        training=training,
        training_nodes=range(trainers),
        server_nodes=range(min(generators, default=nodes), nodes),
        server_timeout=float(env.get("SERVER_TIMEOUT", "60")),
        stop_grace=5.0,
    )
    return NodeRun(node, control).run()
