"""A judge that ends, however it does, leaves neither processes nor folders behind."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from open_r1.errors import UserError
from open_r1.rewards.code import folders, local, sandbox
from open_r1.rewards.code.cases import Case
from open_r1.rewards.code.choose import best_isolation, candidates, works
from open_r1.rewards.code.judge import judge
from open_r1.rewards.code.programs import program
from open_r1.rewards.code.rewards import code_reward

KINDS = [kind for kind in ("bubblewrap", "landlock") if any(i.kind == kind and works(i) for i in candidates())]
JUDGE = """
import os, sys, threading, time
from open_r1.rewards.code.choose import candidates, works
from open_r1.rewards.code.folders import new_folder
from open_r1.rewards.code.isolation import interpreter
from open_r1.rewards.code.sandbox import Limits, Sandbox
folder = new_folder("program", 0o755)
(folder / "main.py").write_text("import os, time\\nif os.fork() == 0: os.setsid()\\ntime.sleep(97)")
isolation = next(i for i in candidates() if i.kind == sys.argv[1] and works(i))
run = Sandbox(folder, isolation).run
threading.Thread(target=run, args=([interpreter(), "{code}/main.py"], "", Limits(wall_seconds=60))).start()
time.sleep(0.7)
os.kill(os.getpid(), int(sys.argv[2]))
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_that_is_ended_leaves_nothing(kind, number, folder, monkeypatch):
    environment = os.environ | {"TMPDIR": str(folder)}
    command = [sys.executable, "-c", JUDGE, kind, str(int(number))]
    subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, timeout=30)
    deadline = time.monotonic() + 20
    while any(str(folder) in _read(path) for path in Path("/proc").glob("[0-9]*/cmdline")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    folders._remove_left()  # as the next judge does
    assert not list(folder.iterdir())


def _read(path):
    try:
        return path.read_text()
    except OSError:
        return ""


def test_the_folder_of_a_judge_that_runs_stays(folder, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    folders._home.cache_clear()
    mine = folders.new_folder("program", 0o755)
    folders._remove_left()
    assert mine.is_dir()
    folders._home.cache_clear()


def test_a_new_folder_that_another_judge_removes_at_once_is_made_again(folder, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    folders._home.cache_clear()
    make, made = tempfile.mkdtemp, []

    def make_and_lose(*arguments, **options):
        made.append(Path(make(*arguments, **options)))
        if len(made) == 1:
            made[0].rmdir()  # as another judge does that sees it before it is locked
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    assert folders.new_folder("program", 0o755).parent == made[1]
    folders._home.cache_clear()


ANSWER, INFO = ["```python\nprint(int(input()) + 1)\n```"], [{"test_cases": [{"input": "1", "output": "2"}]}]


def _judge_in_a_fork(connection):
    connection.send(code_reward(ANSWER, INFO))


def test_programs_are_judged_in_forks_and_in_many_threads():
    assert code_reward(ANSWER, INFO) == [1.0]
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_judge_in_a_fork, args=(theirs,))
    process.start()
    assert ours.poll(60) and ours.recv() == [1.0]
    process.join()
    assert process.exitcode == 0
    rewards = []
    threads = [threading.Thread(target=lambda: rewards.extend(code_reward(ANSWER, INFO))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rewards == [1.0] * 6


def test_no_room_for_programs_is_said(folder, monkeypatch):
    best_isolation()
    folders._home.cache_clear()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "missing"))
    with pytest.raises(UserError, match=r"cannot create a folder for programs .* set TMPDIR to another"):
        folders.new_folder("program", 0o755)
    with pytest.raises(UserError, match=r"cannot write the test cases of a problem .* set TMPDIR to another"):
        folders.new_file("cases", b"")
    folders._home.cache_clear()


@pytest.mark.skipif("bubblewrap" not in KINDS, reason="does not work here")
@pytest.mark.parametrize(("source", "language"), [("print('another')", "python"), ("int main() {}", "cpp")])
def test_bubblewrap_that_vanishes_is_said(monkeypatch, source, language):
    """To the program, or to its compiler, which runs first."""
    if language == "cpp" and shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    best_isolation()
    local.close_sandboxes()
    monkeypatch.setattr(sandbox, "bubblewrap", lambda *arguments: ["/nowhere/bwrap"])
    with pytest.raises(UserError, match=r"the sandbox no longer starts: .*/nowhere/bwrap"):
        judge(local.LocalProvider(best_isolation()), program(source, language), [Case("", "1")], sandbox.Limits())
