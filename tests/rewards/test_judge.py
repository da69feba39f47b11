"""How often a program is run, and what counts as its output, told by a provider that runs nothing."""

from contextlib import contextmanager

import pytest

from open_r1.rewards.code.cases import Case
from open_r1.rewards.code.comparing import same_lines
from open_r1.rewards.code.judge import Failure, judge
from open_r1.rewards.code.programs import program
from open_r1.rewards.code.queue import JUDGING
from open_r1.rewards.code.rewards import binary_code_reward
from open_r1.rewards.code.sandbox import Limits, Outcome
from open_r1.rewards.pool import Pool


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
    result = judge(provider, program("", "python"), cases, Limits(), batch_size=batch_size)
    assert (result.passed, result.total, provider.runs) == (passed, 50, runs)


def test_a_program_is_run_until_its_first_failure_where_that_decides():
    provider = ScriptedProvider(["ok", "error"])
    result = judge(provider, program("", "python"), [Case("", "1")] * 50, Limits(), stop_at_failure=True)
    assert (result.passed, result.total, provider.runs) == (1, 50, 2)
    assert result.failure == Failure(2, "error", "", "1", "1")


@pytest.mark.parametrize("output", ["1\n2", "1\n2\n", "1 \n2", "\n1\r\n2 \n\n"])
def test_white_space_at_the_ends_of_lines_and_of_the_output_does_not_count(output):
    assert same_lines(output, "1\n2\n")


@pytest.mark.parametrize("output", ["", "1", "12", "1 2", "1\n\n2", "2\n1"])
def test_lines_count(output):
    assert not same_lines(output, "1\n2\n")


def test_judging_may_begin_while_others_are_written_and_is_done_once(monkeypatch):
    judged, submit = [], Pool.submit
    monkeypatch.setattr(Pool, "submit", lambda pool, request: judged.append(request) or submit(pool, request))
    answers = ["```python\nprint(1)\n```"] * 3 + ["```python\nprint(2)\n```"]
    info = [{"test_cases": [{"input": "", "output": "1"}]}] * 4
    assert binary_code_reward(answers[:2], info[:2], wait=False) == [None, None]
    assert binary_code_reward(answers, info) == [1.0, 1.0, 1.0, 0.0]
    assert len(judged) == 2 and not JUDGING._verdicts
