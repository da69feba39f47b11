"""Counts the test cases that a program passes. Expected outputs never enter the sandbox."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

from open_r1.errors import UserError
from open_r1.rewards.code.programs import Program, program
from open_r1.rewards.code.providers import CompileError, Provider
from open_r1.rewards.code.sandbox import Limits
from open_r1.rewards.text import RowError

MAX_TIMEOUTS = 3
MOST_THREADS = 64
"""That wait for tests of a program, however many `batch_size` asks to run at once."""
ScoringMode = Literal["pass_fail", "partial", "weighted_sum"]
Check = Callable[[str, str, str], bool]


@dataclass(frozen=True)
class Case:
    """What goes in, and what should come out."""

    input: str
    output: str


@dataclass(frozen=True)
class Result:
    """Passed and given test cases; `compiled` is False for a program that does not build."""

    passed: int
    total: int
    compiled: bool = True


def tests_of(cases: Any, row: int) -> list[Case]:
    """Test cases of a dataset's row: a list of `{"input", "output"}`, or a dictionary of two lists. An input of None
    is empty. Raises `RowError` for anything else."""
    if not cases:
        return []
    if isinstance(cases, dict):
        inputs, outputs = cases.get("input") or [], cases.get("output") or []
        if len(inputs) != len(outputs):
            raise RowError(row, f"test_cases have {len(inputs)} inputs for {len(outputs)} outputs.")
        cases = [{"input": i, "output": o} for i, o in zip(inputs, outputs, strict=True)]
    if not isinstance(cases, list):
        raise RowError(row, f"test_cases are {cases!r:.80}: they must be a list of {{'input', 'output'}}.")
    return [_case(case, row) for case in cases]


def _case(case: Any, row: int) -> Case:
    if not isinstance(case, dict) or "input" not in case or case.get("output") is None:
        raise RowError(row, f"a test case is {case!r:.80}: it must have 'input' and 'output'.")
    return Case("" if case["input"] is None else str(case["input"]), str(case["output"]))


def same_output(output: str, expected: str) -> bool:
    """Equal line by line, but for white space at the ends of lines and of the text."""
    return _lines(output) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def with_room(limits: Limits, tests: Sequence[Case]) -> Limits:
    """`limits` under which a program can print the longest expected output, and more to show what is wrong with it."""
    longest = max((len(test.output) for test in tests), default=0)
    return replace(limits, output_bytes=max(limits.output_bytes, 2 * longest + 65_536))


def judge(
    provider: Provider,
    submission: Program,
    tests: list[Case],
    limits: Limits,
    *,
    stop_at_failure: bool = False,
    batch_size: int = 1,
    check: Check | None = None,
) -> Result:
    """Runs `submission` on every test, `batch_size` at once.

    Stops after a batch with a failure if `stop_at_failure`; a program that ran out of time on three tests fails the
    others unseen. `check(input, expected, output)` replaces the comparison of lines.
    """
    passed = timeouts = 0
    limits = with_room(limits, tests)
    batch_size = batch_size if batch_size > 0 else max(len(tests), 1)
    try:
        with provider.open(submission, limits) as run, ThreadPoolExecutor(min(batch_size, MOST_THREADS)) as threads:
            run_all = threads.map if batch_size > 1 else map
            for start in range(0, len(tests), batch_size):
                batch = tests[start : start + batch_size]
                good = 0
                for test, outcome in zip(batch, run_all(lambda test: run(test.input), batch), strict=True):
                    timeouts += outcome.status == "time"
                    if outcome.status == "ok":
                        same = check(test.input, test.output, outcome.stdout) if check else None
                        good += same_output(outcome.stdout, test.output) if same is None else same
                passed += good
                if timeouts >= MAX_TIMEOUTS or (stop_at_failure and good < len(batch)):
                    break
    except CompileError:
        return Result(0, len(tests), compiled=False)
    return Result(passed, len(tests))


@dataclass(frozen=True)
class Task:
    """A program, its tests, and how they are judged: everything that decides the result. `checker` is the source of a
    program for `python_checker`."""

    program: Program
    tests: list[Case]
    limits: Limits
    stop_at_failure: bool = False
    batch_size: int = 1
    checker: str | None = None


def judge_task(provider: Provider, task: Task) -> Result:
    """The result of a task."""
    return judge(
        provider,
        task.program,
        task.tests,
        task.limits,
        stop_at_failure=task.stop_at_failure,
        batch_size=task.batch_size,
        check=python_checker(provider, task.checker, task.limits) if task.checker else None,
    )


def scored(result: Result, mode: ScoringMode) -> float:
    """`pass_fail`: 1 if all tests pass; `partial`: their share; `weighted_sum`: the first plus 0.1 of the second."""
    all_passed = float(result.passed == result.total)
    share = result.passed / result.total
    if mode == "pass_fail":
        return all_passed
    if mode == "partial":
        return share
    if mode == "weighted_sum":
        return all_passed + 0.1 * share
    raise UserError(f"code_eval_scoring_mode is {mode!r}: it must be 'pass_fail', 'partial' or 'weighted_sum'.")


def python_checker(provider: Provider, source: str, limits: Limits) -> Check:
    """A check by a dataset's own Python program, which gets the names of three files (input, expected output, output)
    and prints 1 for a right one. It runs in the sandbox too."""
    wrapper = (
        "import runpy, sys\n"
        "parts = sys.stdin.buffer.read()\n"
        "for name in ('input.txt', 'expected.txt', 'output.txt'):\n"
        "    size, _, parts = parts.partition(b'\\n')\n"
        "    open(name, 'wb').write(parts[:int(size)])\n"
        "    parts = parts[int(size):]\n"
        "sys.argv = ['checker.py', 'input.txt', 'expected.txt', 'output.txt']\n"
        f"exec(compile({source!r}, 'checker.py', 'exec'), {{'__name__': '__main__'}})\n"
    )
    checker = program(wrapper, "python")

    def check(stdin: str, expected: str, output: str) -> bool:
        framed = "".join(f"{len(part.encode(errors='replace'))}\n{part}" for part in (stdin, expected, output))
        with provider.open(checker, limits) as run:
            return run(framed).stdout.strip().lower() in ("1", "1.0", "true")

    return check
