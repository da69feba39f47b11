"""Bounds of what judges an answer or runs a program, each told apart from the others."""

import os
import shutil
from contextlib import contextmanager

import pytest

from open_r1.rewards.code import sandbox
from open_r1.rewards.code.judge import Case, Result, judge
from open_r1.rewards.code.programs import program
from open_r1.rewards.code.sandbox import Limits, Outcome
from open_r1.rewards.pool import Pool, Reply

HUNGRY = "def answer(request):\n    return len(bytearray(request['megabytes'] << 20))\n"


def test_a_worker_ends_at_its_memory_limit_and_at_no_other(tmp_path, monkeypatch):
    (tmp_path / "hungry.py").write_text(HUNGRY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    pool = Pool(1, seconds=60, memory_mb=400, module="hungry")
    assert pool.submit({"megabytes": 500}).result() == Reply(limit="memory")
    assert pool.submit({"megabytes": 100}).result() == Reply(value=100 << 20)
    pool.close()


class ScriptedProvider:
    """Programs end as told, one run after another."""

    languages = None

    def __init__(self, statuses):
        self.statuses, self.runs = statuses, 0

    @contextmanager
    def open(self, program, limits):
        yield self.run

    def run(self, stdin):
        status = self.statuses[self.runs % len(self.statuses)]
        self.runs += 1
        return Outcome(status, "1", 0)


@pytest.mark.parametrize(
    ("statuses", "batch_size", "runs", "passed"),
    [
        (["time"], 1, 3, 0),
        (["ok", "time"], 1, 6, 3),
        (["time"], 2, 4, 0),
        (["error"], 1, 50, 0),
        (["ok"], 1, 50, 50),
    ],
)
def test_a_program_is_run_until_its_third_time_out(statuses, batch_size, runs, passed):
    provider = ScriptedProvider(statuses)
    cases = [Case("", "1")] * 50
    assert judge(provider, program("", "python"), cases, Limits(), batch_size=batch_size) == Result(passed, 50)
    assert provider.runs == runs


def test_a_program_is_run_until_its_first_failure_where_that_decides():
    provider = ScriptedProvider(["ok", "error"])
    result = judge(provider, program("", "python"), [Case("", "1")] * 50, Limits(), stop_at_failure=True)
    assert (result, provider.runs) == (Result(1, 50), 2)


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_the_folder_of_a_program_is_read_only_whatever_its_permissions(tmp_path):
    for folder in [tmp_path, *tmp_path.parents]:
        if "pytest-" in str(folder):
            folder.chmod(0o755)
    tmp_path.chmod(0o777)
    (tmp_path / "main.py").write_text("open('/code/left', 'w').write('x')\nprint('written')")
    command = [sandbox.python(), "{code}/main.py"]
    assert sandbox.run(command, tmp_path).status == "error"
    assert not (tmp_path / "left").exists()
    assert sandbox.run(command, tmp_path, writable=True).stdout == "written\n"
    assert (tmp_path / "left").exists()
