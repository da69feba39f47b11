"""Two nodes with networks of their own: two network namespaces of this machine, joined by a cable (as root)."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import PATIENCE
from runs import arguments, make_folder, weights

ROOT = Path(__file__).parents[2]
ADDRESSES = ("10.77.0.1", "10.77.0.2")


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True)


def may_make_namespaces() -> bool:
    return os.name == "posix" and os.geteuid() == 0 and shutil.which("ip") is not None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not may_make_namespaces(), reason="network namespaces need root and iproute2"),
]


@pytest.fixture
def nodes():
    """Names of two namespaces, each with one end of a cable."""
    names = [f"open-r1-{os.getpid()}-{i}" for i in (0, 1)]
    cable = [f"r1{os.getpid()}{i}"[-15:] for i in (0, 1)]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for name, end, address in zip(names, cable, ADDRESSES, strict=True):
            run("ip", "link", "set", end, "netns", name)
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", end)
            run("ip", "-n", name, "link", "set", end, "name", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture
def start(nodes, tmp_path):
    """Starts this launch on one of the nodes; its output is read from the file `node-<rank>`."""
    folder = make_folder(tmp_path)

    def start_node(rank, *words, out=tmp_path / "out", **options):
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests/training")]),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "eth0",
        }
        recipe = tmp_path / "sft" / "config_toy.yaml"
        recipe.parent.mkdir(exist_ok=True)
        recipe.write_text("per_device_train_batch_size: 4\n")
        command = ["ip", "netns", "exec", nodes[rank], sys.executable, "-m", "open_r1.cli", "launch"]
        command += ["--nodes", "2", "--node-rank", str(rank), "--head", ADDRESSES[0], *words, str(recipe)]
        command += arguments(folder, "sft", out, **{"save_strategy": "no", **options})
        with (tmp_path / f"node-{rank}").open("wb") as output:
            return subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)

    return start_node


def test_training_over_a_cable(start, tmp_path):
    processes = [start(rank, max_steps=2) for rank in (0, 1)]
    assert [p.wait(timeout=PATIENCE) for p in processes] == [0, 0], (tmp_path / "node-0").read_text()
    assert "Training in 2 processes on cpu (gloo)" in (tmp_path / "node-0").read_text()
    assert weights(tmp_path / "out")


def test_a_node_that_comes_later_is_waited_for(start, tmp_path):
    first = start(1, max_steps=1)
    time.sleep(8)
    assert start(0, max_steps=1).wait(timeout=PATIENCE) == 0, (tmp_path / "node-0").read_text()
    assert first.wait(timeout=PATIENCE) == 0


def test_a_cable_that_is_pulled_ends_both_nodes(start, nodes, tmp_path):
    processes = [start(rank, max_steps=100000) for rank in (0, 1)]
    deadline = time.monotonic() + PATIENCE
    while "step 2/" not in (tmp_path / "node-0").read_text():
        assert time.monotonic() < deadline, (tmp_path / "node-0").read_text()
        time.sleep(0.3)
    run("ip", "-n", nodes[1], "link", "set", "eth0", "down")
    assert [p.wait(timeout=PATIENCE) for p in processes] == [1, 1]
    assert f"node 1 ({socket.gethostname()}) silent for 60 s" in (tmp_path / "node-0").read_text()
    assert "node 0 has gone" in (tmp_path / "node-1").read_text()
