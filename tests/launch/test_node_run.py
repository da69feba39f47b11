"""A node's run with commands that stand in for servers and training."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from open_r1.engine.vllm.process import ServerCommand
from open_r1.launch import node_run
from open_r1.launch.control import Control
from open_r1.launch.node_run import NodePlan, NodeRun
from open_r1.processes.child import Command

SERVER = str(Path(__file__).parent / "fake_server.py")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def server(folder: Path, late: float = 0.0, dies: float = 0.0, name: str = "generator") -> ServerCommand:
    port = free_port()
    words = (sys.executable, SERVER, str(port), f"late={late}", *([f"dies={dies}"] if dies else []))
    return ServerCommand(name, Command(words, {}), f"http://127.0.0.1:{port}", folder / f"{name}.log")


def plan(*servers: ServerCommand, training: str = "print('trained')", timeout: float = 20.0) -> NodePlan:
    command = Command((sys.executable, "-c", training), {})
    return NodePlan("this node", servers, lambda: command, range(1), range(1 if servers else 0), timeout, 5.0)


def children() -> list[psutil.Process]:
    mine = psutil.Process().children(recursive=True)
    alive = [p for p in mine if p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in alive if "open_r1.processes.guard" in " ".join(p.cmdline())]


@pytest.fixture(autouse=True)
def no_orphans():
    yield
    assert children() == []


def test_training_begins_when_the_servers_answer_and_they_end_with_it(tmp_path, capfd):
    assert NodeRun(plan(server(tmp_path, late=0.5), server(tmp_path, name="other")), Control()).run() == 0
    shown = capfd.readouterr().out
    assert shown.index("2 servers are up") < shown.index("trained")
    assert "listening" in (tmp_path / "other.log").read_text()


def test_a_server_that_is_late_ends_it_before_training(tmp_path, capfd):
    assert NodeRun(plan(server(tmp_path, late=60), timeout=0.5), Control()).run() == 1
    out, err = capfd.readouterr()
    assert "did not answer at http://127.0.0.1:" in err
    assert "vllm_server_timeout" in err
    assert "trained" not in out


def test_a_server_that_cannot_start_is_shown_with_its_last_lines(tmp_path, capfd):
    broken = ServerCommand(
        "generator",
        Command((sys.executable, "-c", "print('no such model'); exit(3)"), {}),
        "http://127.0.0.1:9",
        tmp_path / "log",
    )
    assert NodeRun(plan(broken), Control()).run() == 3
    err = capfd.readouterr().err
    assert "error: generator ended with exit code 3" in err
    assert "no such model" in err


def test_a_server_that_dies_ends_training(tmp_path, capfd):
    assert NodeRun(plan(server(tmp_path, dies=1.0), training="import time; time.sleep(60)"), Control()).run() == 9
    err = capfd.readouterr().err
    assert "generator ended with exit code 9" in err
    assert "out of memory" in err


def test_a_server_whose_death_training_sees_first_is_what_failed(tmp_path, capfd):
    assert NodeRun(plan(server(tmp_path, dies=1.0), training="exit(2)"), Control()).run() == 9
    assert "generator ended with exit code 9" in capfd.readouterr().err


@pytest.mark.parametrize(("training", "status"), [("exit(4)", 4), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_training_that_fails_gives_its_status(training, status, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(node_run, "CAUSE_SECONDS", 0.5)
    assert NodeRun(plan(server(tmp_path), training=f"print('step 1'); {training}"), Control()).run() == status
    out, err = capfd.readouterr()
    assert f"training ended with exit code {status}" in err
    assert out.count("step 1") == 1


WORKER = (
    "import signal, sys, time; signal.signal({n}, lambda *_: sys.exit({code})); print('up', flush=True); time.sleep(60)"
)


@pytest.mark.parametrize(
    ("sent", "code", "status"),
    [(signal.SIGUSR1, 75, 75), (signal.SIGTERM, 75, 75), (signal.SIGINT, 130, 130), (signal.SIGTERM, 0, 0)],
)
def test_signals_go_to_training_which_has_time_to_save(sent, code, status, tmp_path, capfd):
    worker = WORKER.format(n=int(sent), code=code)
    agent = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {worker!r}]).returncode)"
    run = NodeRun(plan(training=agent), Control())

    def send():
        while not (run.training and "up" in run.training.lines):
            time.sleep(0.05)
        os.kill(os.getpid(), sent)

    thread = threading.Thread(target=send)
    thread.start()
    assert run.run() == status
    thread.join()
    err = capfd.readouterr().err
    assert ("Run the same command to continue" in err) == (status in (75, 130))


def test_a_signal_while_servers_start_ends_it(tmp_path):
    run = NodeRun(plan(server(tmp_path, late=60)), Control())
    threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert run.run() == 128 + signal.SIGTERM
