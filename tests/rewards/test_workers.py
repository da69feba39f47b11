"""Programs that are judged in processes of their own, as on machines with many cores."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from open_r1.errors import UserError
from open_r1.rewards.code import folders, local
from open_r1.rewards.code.programs import LANGUAGES, declare
from open_r1.rewards.code.rewards import cf_code_reward, code_reward
from open_r1.rewards.code.workers import MOST_THREADS, WORKERS

MANY = MOST_THREADS + 1
CASES = [{"input": "4\n", "output": "5"}, {"input": "6\n", "output": "7"}]


@pytest.fixture(autouse=True)
def workers():
    known = dict(LANGUAGES)
    yield WORKERS
    WORKERS.close()
    LANGUAGES.clear()
    LANGUAGES.update(known)


def score(*sources, language="python"):
    info = [{"language": language, "test_cases": CASES}] * len(sources)
    return code_reward([f"```{language}\n{source}\n```" for source in sources], info, num_parallel=MANY)


def test_programs_get_the_same_scores_and_processes_stay(monkeypatch, workers):
    monkeypatch.setattr(local, "Sandbox", None)  # so that nothing is judged here
    sources = [f"print(int(input()) + 1)  # {number}" for number in range(12)]
    assert score(*sources, "print(5)", "1 / 0") == [1.0] * 12 + [0.5, 0.0]
    started = {worker._process.pid for worker in workers._idle}
    assert 1 <= len(started) <= MANY
    assert score("print(int(input()) + 1)  # another") == [1.0]
    assert {worker._process.pid for worker in workers._idle} == started
    workers.close()
    assert not any(Path("/proc", str(pid)).exists() for pid in started)


def test_a_process_that_ended_is_replaced(workers):
    assert score("print(int(input()) + 1)") == [1.0]
    workers._idle[-1]._process.kill()
    assert score("print(int(input()) + 1)  # again") == [1.0]


def test_declared_languages_and_mistakes_reach_the_processes():
    declare("shell | main.sh | | sh {code}/main.sh")
    assert score("read a\necho $((a + 1))", language="shell") == [1.0]
    declare("shell | main.sh | | no-such-shell {code}/main.sh")
    with pytest.raises(UserError, match="a program in shell needs no-such-shell on this machine"):
        score("read a\necho $((a + 1)) again", language="shell")


def test_checkers_run_in_the_processes():
    checker = "import sys\nprint(int(open(sys.argv[3]).read()) > 4)"
    columns = {"official_tests": [CASES] * 2, "language": ["python"] * 2, "generated_checker": [checker] * 2}
    answers = ["```python\nprint(99)\n```", "```python\nprint(1)\n```"]
    assert cf_code_reward(answers, num_parallel=MANY, scoring_mode="partial", **columns) == [1.0, 0.0]


def _judge_in_a_fork(connection):
    connection.send(score("print(int(input()) + 1)  # in a fork"))


def test_a_fork_has_processes_of_its_own(workers):
    assert score("print(int(input()) + 1)") == [1.0]
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_judge_in_a_fork, args=(theirs,))
    process.start()
    assert ours.poll(60) and ours.recv() == [1.0]
    process.join()
    assert score("print(int(input()) + 1)  # still here") == [1.0]


PARENT = f"""
import os, signal, threading, time
from open_r1.rewards.code.rewards import code_reward
source = "import os, time\\nif os.fork() == 0: os.setsid()\\ntime.sleep(97)"
answers, info = [f"```python\\n{{source}}\\n```"], [{{"test_cases": [{{"input": "", "output": "1"}}]}}]
threading.Thread(target=code_reward, args=(answers, info), kwargs={{"num_parallel": {MANY}, "time_limit": 20}}).start()
time.sleep(1.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_parent_that_is_killed_leaves_neither_processes_nor_folders(folder, monkeypatch):
    subprocess.run([sys.executable, "-c", PARENT], env=os.environ | {"TMPDIR": str(folder)}, timeout=60)
    deadline = time.monotonic() + 20
    while any(_mentions(path, folder) for path in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    folders._remove_left()  # as the next judge does
    assert not list(folder.iterdir())


def _mentions(process, folder):
    try:
        return str(folder) in (process / "environ").read_text() or str(folder) in (process / "cmdline").read_text()
    except (OSError, UnicodeDecodeError):
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_that_are_meant_for_the_parent_do_not_end_them(number, workers):
    assert score("print(int(input()) + 1)") == [1.0]
    process = workers._idle[-1]._process
    process.send_signal(number)
    assert score("print(int(input()) + 1)  # after a signal") == [1.0]
    assert workers._idle[-1]._process is process
