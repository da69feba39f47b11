"""Bounds of what judges an answer or runs a program, each told apart from the others."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from open_r1.rewards.code import sandbox
from open_r1.rewards.code.choose import best_isolation
from open_r1.rewards.code.isolation import interpreter
from open_r1.rewards.grader import Grader
from open_r1.rewards.pool import Pool, Reply, Worker

HUNGRY = "def answer(request):\n    return len(bytearray(request['megabytes'] << 20))\n"


def test_a_worker_ends_at_its_memory_limit_and_at_no_other(tmp_path, monkeypatch):
    (tmp_path / "hungry.py").write_text(HUNGRY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    pool = Pool(1, seconds=60, memory_mb=400, module="hungry")
    assert pool.submit({"megabytes": 500}).result() == Reply(limit="memory")
    assert pool.submit({"megabytes": 100}).result() == Reply(value=100 << 20)
    pool.close()


SLEEPY = "import time\n\n\ndef answer(request):\n    time.sleep(60)\n"


def test_a_worker_in_the_middle_of_a_request_ends_with_its_parent(tmp_path):
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    script = (
        "import os, signal, time\nfrom open_r1.rewards.pool import Pool\n"
        "pool = Pool(1, seconds=60, memory_mb=1024, module='sleepy')\npool.submit({})\n"
        "while not pool._workers: time.sleep(0.05)\n"
        "print([w.process.pid for w in pool._workers][0], flush=True)\ntime.sleep(0.2)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    stat, deadline = Path(f"/proc/{int(done.stdout)}/stat"), time.monotonic() + 20
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


NOTED = "import time\n\n\ndef answer(request):\n    open(request['file'], 'w').close()\n    time.sleep(60)\n"


@pytest.fixture
def noted(tmp_path, monkeypatch):
    (tmp_path / "noted.py").write_text(NOTED)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return [tmp_path / f"began-{number}" for number in range(3)]


def test_a_pool_that_is_closed_begins_no_request_that_waits(noted):
    pool = Pool(1, seconds=20, module="noted")
    replies = [pool.submit({"file": str(file)}) for file in noted]
    deadline = time.monotonic() + 60
    while not noted[0].exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pool.close()
    assert [reply.result() for reply in replies] == [Reply(limit="crash")] * 3
    assert [file.exists() for file in noted] == [True, False, False]


def test_a_worker_that_starts_while_its_pool_is_closed_ends(noted, monkeypatch):
    started = []

    class SlowWorker(Worker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self)
            pool.close()

    monkeypatch.setattr("open_r1.rewards.pool.Worker", SlowWorker)
    pool = Pool(1, seconds=20, module="noted")
    assert pool.submit({"file": str(noted[0])}).result() == Reply(limit="crash")
    assert [worker.process.poll() is None for worker in started] == [False]
    assert not noted[0].exists()


def test_a_worker_that_crashed_says_nothing_of_the_answer(monkeypatch):
    grader = Grader(workers=1)
    replies = [Reply(limit="crash"), Reply(value=True)]

    def submit(request):
        future = Future()
        future.set_result(replies.pop(0))
        return future

    monkeypatch.setattr(grader.pool, "submit", submit)
    question = {"completions": [r"\boxed{\int_0^1 2x\,dx + y}"], "golds": ["y+1"]}
    assert [grader.grade_many(**question)[0].correct for _ in range(3)] == [None, True, True]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_the_folder_of_a_program_is_read_only_whatever_its_permissions(folder):
    folder.chmod(0o777)
    (folder / "main.py").write_text("open('/code/left', 'w').write('x')\nprint('written')")
    command = [interpreter(), "{code}/main.py"]
    assert sandbox.run(command, folder, isolation=best_isolation()).status == "error"
    assert not (folder / "left").exists()
    assert sandbox.run(command, folder, isolation=best_isolation(), writable=True).stdout == "written\n"
    assert (folder / "left").exists()
