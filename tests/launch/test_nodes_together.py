"""Several nodes of a launch on this machine: they meet, hear of each other's failures, and end together."""

import os
import signal
import socket
import time

import psutil
import pytest
from stand_in_node import ForkedNode

from open_r1.launch.node_run import LOST_SECONDS


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def start(tmp_path):
    """Starts nodes `ranks` (all of them) of `nodes`, with settings for `stand_in_node`."""

    def start_nodes(nodes, ranks=None, **settings):
        port = free_port()
        ranks = range(nodes) if ranks is None else ranks
        return [ForkedNode(port, nodes, rank, settings, tmp_path / f"node-{port}-{rank}") for rank in ranks]

    return start_nodes


def finish(nodes) -> list[tuple[int, str]]:
    return [node.wait() for node in nodes]


def test_training_waits_for_the_generators_of_another_node_and_all_end_together(start):
    train = "import time; print('trained', time.time())"
    (code, out), (server_code, server_out) = finish(start(2, TRAINING_0=train, SERVER_1=1.5))
    assert (code, server_code) == (0, 0)
    assert "trained" in out
    assert "generator is up" in server_out


def test_a_worker_that_dies_ends_every_node_and_its_last_lines_are_shown_everywhere(start):
    wait = "import time; time.sleep(80)"
    dies = "import time; time.sleep(1); print('CUDA out of memory'); raise SystemExit(5)"
    ended = finish(start(3, TRAINING_0=wait, TRAINING_1=dies, TRAINING_2=wait))
    assert [code for code, _ in ended] == [5, 5, 5]
    assert f"training on node 1 ({socket.gethostname()}) ended with exit code 5" in ended[0][1]
    assert "CUDA out of memory" in ended[0][1]


def test_a_node_that_lost_a_process_of_another_waits_for_the_reason(start):
    killed = "import os, time; time.sleep(5); os.kill(os.getpid(), 9)"
    ended = finish(start(2, TRAINING_0="raise SystemExit(76)", TRAINING_1=killed))
    assert [code for code, _ in ended] == [137, 137]
    sentence = f"training on node 1 ({socket.gethostname()}) ended with exit code 137 (SIGKILL)"
    assert all(sentence in out for _, out in ended)


def test_a_node_that_waits_for_the_reason_ends_at_a_signal(start):
    lost = "print('lost', flush=True); raise SystemExit(76)"
    nodes = start(2, TRAINING_0=lost, TRAINING_1="import time; time.sleep(80)")
    wait_until(lambda: nodes[0].output.exists() and "lost" in nodes[0].output.read_text())
    began = time.monotonic()
    os.kill(nodes[0].pid, signal.SIGTERM)
    assert [code for code, _ in finish(nodes)] == [76, 76]
    assert time.monotonic() - began < LOST_SECONDS / 2


def test_a_generator_that_is_late_ends_every_node_before_training(start):
    ended = finish(start(2, TRAINING_0="print('trained')", SERVER_1=60, SERVER_TIMEOUT=1))
    assert [code for code, _ in ended] == [1, 1]
    assert "did not answer" in ended[0][1]
    assert "trained" not in ended[0][1]


def test_a_node_that_does_not_come_is_named(start):
    ((code, out),) = finish(start(2, ranks=[0], START=1, TRAINING_0="1"))
    assert code == 2
    assert "node 1 of 2 did not join within 1 s. The others: node 0" in out
    ((code, out),) = finish(start(2, ranks=[1], START=1, TRAINING_0="1"))
    assert code == 2
    assert "node 0 (127.0.0.1" in out


def test_nodes_that_were_started_differently_do_not_begin(start):
    ended = finish(start(2, TRAINING_0="print('trained')", PLAN_0="one recipe", PLAN_1="another"))
    assert 2 in [code for code, _ in ended]
    assert all("trained" not in out for _, out in ended)
    assert any("another command or another version" in out for _, out in ended)


@pytest.mark.parametrize(
    ("killed", "number"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGSTOP), (1, signal.SIGSTOP)]
)
def test_a_node_that_is_killed_or_hangs_is_missed(killed, number, start):
    wait = "import time; print('up', flush=True); time.sleep(80)"
    nodes = start(2, TRAINING_0=wait, TRAINING_1=wait, SILENCE=3)
    wait_until(lambda: all(node.output.exists() and "up" in node.output.read_text() for node in nodes))
    below = psutil.Process(nodes[killed].pid).children(recursive=True)
    os.kill(nodes[killed].pid, number)
    code, out = nodes[1 - killed].wait()
    os.kill(nodes[killed].pid, signal.SIGKILL)
    assert nodes[killed].wait()[0] == 128 + signal.SIGKILL
    assert code == 1
    assert "silent for 3 s" in out if killed else "has gone" in out
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in below))


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
