"""Runs a completion's program on a problem's tests, and reports the first test that fails."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.problems import BenchmarkProblem
from open_r1.rewards import Verdict
from open_r1.rewards.code.judge import Case, with_room
from open_r1.rewards.code.programs import Program
from open_r1.rewards.code.providers import CompileError, get_provider
from open_r1.rewards.code.sandbox import Limits, Outcome
from open_r1.rewards.pool import default_size

SHOWN = 1000
"""Characters of a test's input, expected output and output that are stored with a sample."""
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


@dataclass(frozen=True)
class Failure:
    """The first test that a program fails: its number from 1, the reason, and the program's output."""

    number: int
    total: int
    what: str
    test: Case
    got: str

    def text(self) -> str:
        """The failure as it is stored with a sample."""
        parts = {"Input": self.test.input, "Expected": self.test.output, "Got": self.got}
        shown = "".join(f"\n{name}:\n{shortened(value)}" for name, value in parts.items())
        return f"test {self.number} of {self.total}: {self.what}{shown}"


def shortened(text: str) -> str:
    """At most `SHOWN` characters, and the number of the others."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}\n... {len(text) - SHOWN:,} more characters"


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
    first_failure: Callable[[BenchmarkProblem, str], str | None],
    find_program: Callable[[str], str | None] = last_program,
) -> Judge:
    """Verdicts by `first_failure(problem, program)`, which returns the failure or None. Programs run in parallel."""

    def one(answer: tuple[BenchmarkProblem, str]) -> Verdict:
        problem, completion = answer
        source = find_program(completion)
        if source is None:
            return Verdict(False, None, "the completion has no fenced code block")
        try:
            failure = first_failure(problem, source)
        except Ungradable as error:
            return Verdict(None, source, str(error))
        return Verdict(failure is None, source, failure or "all tests pass")

    def judge(answers: Sequence[tuple[BenchmarkProblem, str]]) -> list[Verdict]:
        with ThreadPoolExecutor(default_size()) as threads:
            return list(threads.map(one, answers))

    return judge


def opened(program: Program, limits: Limits) -> AbstractContextManager[Callable[[str], Outcome]]:
    """A function from standard input to outcome, in the sandbox of this machine."""
    return get_provider("local").open(program, limits)


def first_failure(
    program: Program, tests: Sequence[Case], limits: Limits, right: Callable[[Case, str], bool]
) -> str | None:
    """Runs `program` on `tests` until one fails, and returns the failure. None if all pass. `right(test, output)`
    compares."""
    try:
        with opened(program, with_room(limits, tests)) as run:
            for number, test in enumerate(tests, 1):
                outcome = run(test.input)
                what = ENDINGS.get(outcome.status)
                if what is None and not right(test, outcome.stdout):
                    what = "wrong answer"
                if what is not None:
                    return Failure(number, len(tests), what, test, outcome.stdout).text()
    except CompileError:
        return "the program does not compile"
    return None


def same_tokens(test: Case, output: str) -> bool:
    """LiveCodeBench's comparison of printed output: the same number of lines, each equal as text or number by
    number."""
    got, expected = _lines(output), _lines(test.output)
    return len(got) == len(expected) and all(map(_same_line, got, expected))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_line(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return _numbers(one) == _numbers(other)
    except InvalidOperation:
        return False


def _numbers(line: str) -> list[Any]:
    return [Decimal(token) for token in line.split()]


def required_text(row: Mapping[str, Any], column: str, at: str) -> str:
    """The text in a column of a row. Raises `UserError` if there is none."""
    value = row.get(column)
    if value is None or not str(value).strip():
        raise UserError(f"{at}, column {column}: expected text.")
    return str(value)
