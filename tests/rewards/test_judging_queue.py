"""Programs are judged in processes beside the one that asks."""

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from sandboxes import needs_compiler

from open_r1.errors import UserError
from open_r1.rewards.code import folders, judge_worker, local
from open_r1.rewards.code.cases import Case, store
from open_r1.rewards.code.judge import Submission
from open_r1.rewards.code.programs import declare, program
from open_r1.rewards.code.queue import JUDGING
from open_r1.rewards.code.rewards import cf_code_reward, code_reward, ioi_code_reward
from open_r1.rewards.code.sandbox import Limits

GRADER = '#include <iostream>\n#include "add.h"\nint main() { int a; std::cin >> a; std::cout << add(a); }'
CASES = [{"input": "4\n", "output": "5"}, {"input": "6\n", "output": "7"}]


@pytest.fixture(scope="module", autouse=True)
def ended():
    yield
    JUDGING.close()


def score(*sources, language="python", **options):
    info = [{"language": language, "test_cases": CASES}] * len(sources)
    return code_reward([f"```{language}\n{source}\n```" for source in sources], info, num_parallel=2, **options)


def processes():
    return [worker.process for worker in JUDGING._processes[2]._workers]


def test_processes_stay_for_the_next_programs_until_they_are_closed(monkeypatch):
    monkeypatch.setattr(local, "Sandbox", None)  # so that nothing is judged here
    sources = [f"print(int(input()) + 1)  # {number}" for number in range(6)]
    assert score(*sources, "print(5)", "1 / 0") == [1.0] * 6 + [0.5, 0.0]
    started = {process.pid for process in processes()}
    assert len(started) == 2
    assert score("print(int(input()) + 1)  # another") == [1.0]
    assert {process.pid for process in processes()} == started
    JUDGING.close()
    assert not any(Path("/proc", str(pid)).exists() for pid in started)
    assert score("print(int(input()) + 1)  # a third") == [1.0]


def test_what_differs_in_any_way_is_judged_apart():
    source = program("print(3)", "python")
    lists = [[Case("1", "23")], [Case("12", "3")], [Case("1", "2"), Case("", "3")], [Case("\ud800", "3")]]
    cases = [store(each) for each in lists]
    tasks = [Submission(source, each, Limits()) for each in cases]
    tasks += [Submission(source, cases[1], Limits(memory_mb=256))]
    tasks += [Submission(source, cases[1], Limits(), checker="print(1)")]
    asked = [JUDGING.submit(task, "unsafe", num_parallel=2) for task in tasks]
    assert [verdict().passed for _, verdict in asked] == [0, 1, 1, 1, 1, 1]
    JUDGING.forget({key for key, _ in asked})
    assert len({key for key, _ in asked}) == len(tasks) and not JUDGING._verdicts


def test_the_cases_of_a_problem_are_written_once_and_go_with_its_verdicts():
    home = folders._home()
    before = set(home.glob("cases-*"))
    info = [json.dumps({"test_cases": CASES}), {"test_cases": CASES}]
    for number in range(6):
        code_reward([f"```python\nprint({number})\n```"], info[number % 2 :][:1], num_parallel=2, wait=False)
    (path,) = set(home.glob("cases-*")) - before
    assert path.stat().st_mode & 0o777 == 0o600
    answers = [f"```python\nprint({number})\n```" for number in range(6)]
    assert code_reward(answers, info * 3, num_parallel=2) == [0.0] * 5 + [0.5]
    assert not path.exists()


def test_cases_that_cannot_be_written_are_a_sentence(monkeypatch):
    monkeypatch.setattr(folders, "_home", lambda: Path("/dev/null"))
    with pytest.raises(UserError, match=r"cannot write the test cases of a problem .*: set TMPDIR"):
        score("print(1)  # nowhere to write")


@needs_compiler
def test_subtasks_of_the_olympiad_are_judged_beside_the_trainer(monkeypatch):
    monkeypatch.setattr(local, "Sandbox", None)
    columns = {
        "id": ["add"] * 2,
        "grader_files": [[["add.h", "int add(int);"], ["grader.cpp", GRADER]]] * 2,
        "test_names": [["a", "b"]] * 2,
        "test_cases": [{"a": ["4", "5"], "b": ["6", "7"]}] * 2,
    }
    answers = [f"```cpp\nint add(int a) {{ return a + {number}; }}\n```" for number in (1, 2)]
    assert ioi_code_reward(answers, num_parallel=2, wait=False, **columns) == [None, None]
    assert ioi_code_reward(answers, num_parallel=2, **columns) == [1.0, 0.0]


def test_a_program_whose_judge_is_killed_is_judged_again():
    score("print(int(input()) + 1)", "print(int(input()) + 1)  # 2")
    for process in processes():
        process.kill()
    assert score("print(int(input()) + 1)  # again", "print(5)  # again") == [1.0, 0.5]


def test_a_program_whose_judge_is_killed_twice_fails_alone_and_is_named(caplog):
    code_reward(["```python\nimport time\ntime.sleep(60)\n```"], [{"test_cases": CASES}], num_parallel=1, wait=False)
    killed = []
    deadline = time.monotonic() + 60
    while len(killed) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        killed += [worker.process.kill() or worker for worker in JUDGING._processes[1]._workers if worker not in killed]
    with caplog.at_level(logging.WARNING):
        answers = ["```python\nimport time\ntime.sleep(60)\n```", "```python\nprint(5)\n```"]
        assert code_reward(answers, [{"test_cases": CASES}] * 2, num_parallel=1) == [0.0, 0.5]
    assert "ended twice (crash), so" in caplog.text


def test_declared_languages_and_mistakes_reach_the_processes(languages):
    declare("shell | main.sh | | sh {code}/main.sh")
    assert score("read a\necho $((a + 1))", language="shell") == [1.0]
    declare("shell | main.sh | | no-such-shell {code}/main.sh")
    with pytest.raises(UserError, match="a program in shell needs no-such-shell on this machine"):
        score("read a\necho $((a + 1)) again", language="shell")


def test_a_fault_of_the_judge_is_no_verdict(monkeypatch):
    monkeypatch.setattr(judge_worker, "request", lambda *arguments: {"language": {}})
    with pytest.raises(RuntimeError, match=r"(?s)a process that judges programs failed:.*TypeError"):
        score("print('a fault')")


def test_checkers_run_in_the_processes():
    checker = "import sys\nprint(int(open(sys.argv[3]).read()) > 4)"
    columns = {"official_tests": [CASES] * 2, "language": ["python"] * 2, "generated_checker": [checker] * 2}
    answers = ["```python\nprint(99)\n```", "```python\nprint(1)\n```"]
    assert cf_code_reward(answers, num_parallel=2, scoring_mode="partial", **columns) == [1.0, 0.0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_that_are_meant_for_the_parent_end_neither_process_nor_sandbox(number):
    assert score("print(int(input()) + 1)") == [1.0]
    before = processes()
    for process in before:
        process.send_signal(number)
    assert score(f"import signal\nprint(int(input()) + (signal.getsignal({number}) != signal.SIG_IGN))") == [1.0]
    assert processes() == before


def _judge_in_a_fork(connection):
    connection.send(score("print(int(input()) + 1)  # in a fork"))


def test_a_fork_has_processes_of_its_own():
    assert score("print(int(input()) + 1)") == [1.0]
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_judge_in_a_fork, args=(theirs,))
    process.start()
    assert ours.poll(60) and ours.recv() == [1.0]
    process.join()
    assert score("print(int(input()) + 1)  # still here") == [1.0]


PARENT = """
import os, signal, sys, threading, time
from pathlib import Path
from open_r1.rewards.code.choose import best_isolation
from open_r1.rewards.code.rewards import code_reward
best_isolation()
source = "import os, time\\nif os.fork() == 0: os.setsid()\\ntime.sleep(97)"
answers, info = [f"```python\\n{source}\\n```"], [{"test_cases": [{"input": "", "output": "1"}]}]
code_reward(answers, info, num_parallel=2, wait=False)
while not list(Path(os.environ["TMPDIR"]).glob("*/program-*/main.py")): time.sleep(0.02)
time.sleep(0.3)
if sys.argv[1] != "0": os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [0, signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_parent_that_ends_while_programs_are_judged_leaves_neither_processes_nor_folders(folder, number, monkeypatch):
    command = [sys.executable, "-c", PARENT, str(int(number))]
    subprocess.run(command, env=os.environ | {"TMPDIR": str(folder)}, stderr=subprocess.DEVNULL, timeout=60)
    deadline = time.monotonic() + 20
    while any(_mentions(path, folder) for path in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if number in (signal.SIGTERM, signal.SIGKILL):  # which leave this process no time: the next judge does it
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        folders._remove_left()
    assert not list(folder.iterdir())


def _mentions(process, folder):
    try:
        return str(folder) in (process / "environ").read_text() or str(folder) in (process / "cmdline").read_text()
    except (OSError, UnicodeDecodeError):
        return False
