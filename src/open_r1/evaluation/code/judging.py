"""Judges completions' programs, and reports the first test that fails."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.problems import BenchmarkProblem
from open_r1.rewards import Verdict
from open_r1.rewards.code.judge import Submission
from open_r1.rewards.code.queue import JUDGING
from open_r1.rewards.pool import cores

ENDINGS = {
    "error": "runtime error",
    "time": "time limit exceeded",
    "memory": "memory limit exceeded",
    "output": "too much output",
    "processes": "too many processes",
}


class Ungradable(Exception):
    """No program can be judged, because the problem itself is faulty."""


Judge = Callable[[Sequence[tuple[BenchmarkProblem, str]]], list[Verdict]]


def last_program(completion: str) -> str | None:
    """The text between the last two lines with three back quotes, after the reasoning if that has ended. None if there
    is none. Except for the reasoning, this is LiveCodeBench's rule."""
    lines = completion.rpartition("</think>")[2].split("\n")
    fences = [number for number, line in enumerate(lines) if "```" in line]
    if len(fences) < 2:
        return None
    block = "\n".join(lines[fences[-2] + 1 : fences[-1]])
    return block if block.strip() else None


def judge_with(
    what_fails: Callable[[BenchmarkProblem, str], str | None],
    find_program: Callable[[str], str | None] = last_program,
) -> Judge:
    """Verdicts by `what_fails(problem, program)`, which returns the failure or None. Programs run in parallel."""

    def one(answer: tuple[BenchmarkProblem, str]) -> Verdict:
        problem, completion = answer
        source = find_program(completion)
        if source is None:
            return Verdict(False, None, "the completion has no fenced code block")
        try:
            failure = what_fails(problem, source)
        except Ungradable as error:
            return Verdict(None, source, str(error))
        return Verdict(failure is None, source, failure or "all tests pass")

    def judge(answers: Sequence[tuple[BenchmarkProblem, str]]) -> list[Verdict]:
        with ThreadPoolExecutor(cores()) as threads:
            return list(threads.map(one, answers))

    return judge


def failure_of(submission: Submission) -> str | None:
    """The first test that a program fails, as it is stored with a sample; None if all pass."""
    result = JUDGING.result(submission)
    if not result.compiled:
        return "the program does not compile"
    if result.passed == result.total:
        return None
    failure = result.failure
    if failure is None:
        return "judging the program ended the process that judges it"
    what = ENDINGS.get(failure.status, "wrong answer")
    parts = {"Input": failure.input, "Expected": failure.expected, "Got": failure.got}
    return f"test {failure.number} of {result.total}: {what}" + listed(parts)


def listed(parts: Mapping[str, str]) -> str:
    """Texts under their names."""
    return "".join(f"\n{name}:\n{text}" for name, text in parts.items())


def required_text(row: Mapping[str, Any], column: str, at: str) -> str:
    """The text in a column of a row. Raises `UserError` if there is none."""
    value = row.get(column)
    if value is None or not str(value).strip():
        raise UserError(f"{at}, column {column}: expected text.")
    return str(value)
