"""Counts the test cases that a program passes. Expected outputs never enter the sandbox."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from open_r1.errors import UserError
from open_r1.rewards.code.cases import Case, StoredCases
from open_r1.rewards.code.comparing import COMPARISONS, Comparison
from open_r1.rewards.code.programs import Program, program
from open_r1.rewards.code.providers import CompileError, Provider
from open_r1.rewards.code.sandbox import Limits, Status

MAX_TIMEOUTS = 3
MOST_THREADS = 64
"""Maximum number of threads that wait for tests of a program, whatever `batch_size` is."""
ScoringMode = Literal["pass_fail", "partial", "weighted_sum"]
Check = Callable[[str, str, str], bool]


SHOWN = 1000
"""Maximum number of characters of each text in a failure."""


@dataclass(frozen=True)
class Failure:
    """The first test case that a program fails: its number (from 1), how the run ended, and the shortened texts."""

    number: int
    status: Status
    input: str
    expected: str
    got: str


@dataclass(frozen=True)
class Result:
    """The numbers of passed test cases and of all, and the first failure. `compiled` is False if the program does not
    compile."""

    passed: int
    total: int
    compiled: bool = True
    failure: Failure | None = None


@dataclass(frozen=True)
class Submission:
    """A program, its test cases, and how to judge them: everything that determines the result. `checker` is the source
    of a program for `python_checker`, which replaces `compare`."""

    program: Program
    cases: StoredCases
    limits: Limits
    stop_at_failure: bool = False
    batch_size: int = 1
    compare: Comparison = "lines"
    checker: str | None = None


@dataclass(frozen=True)
class Run:
    """A program to run once, with `stdin` as its input."""

    program: Program
    limits: Limits
    stdin: str


def shortened(text: str) -> str:
    """At most `SHOWN` characters of `text`, and the number of the others."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}\n... {len(text) - SHOWN:,} more characters"


def with_room(limits: Limits, tests: Sequence[Case]) -> Limits:
    """`limits` with enough output for the longest expected one, and some more so that a failure can show what is
    wrong."""
    longest = max((len(test.output) for test in tests), default=0)
    return replace(limits, output_bytes=max(limits.output_bytes, 2 * longest + 65_536))


def judge(
    provider: Provider,
    code: Program,
    tests: Sequence[Case],
    limits: Limits,
    *,
    stop_at_failure: bool = False,
    batch_size: int = 1,
    compare: Comparison = "lines",
    check: Check | None = None,
) -> Result:
    """Runs `code` on every test, `batch_size` at once.

    With `stop_at_failure`, stops after a batch with a failure. A program that runs out of time on three tests fails the
    others without running. `check(input, expected, output)` replaces `compare`.
    """
    passed = timeouts = 0
    failure: Failure | None = None
    limits = with_room(limits, tests)
    batch_size = batch_size if batch_size > 0 else max(len(tests), 1)
    same = COMPARISONS[compare]
    try:
        with provider.open(code, limits) as run, ThreadPoolExecutor(min(batch_size, MOST_THREADS)) as threads:
            run_all = threads.map if batch_size > 1 else map
            for start in range(0, len(tests), batch_size):
                batch = tests[start : start + batch_size]
                outcomes = run_all(lambda test: run(test.input), batch)
                for number, (test, outcome) in enumerate(zip(batch, outcomes, strict=True), start + 1):
                    timeouts += outcome.status == "time"
                    output = outcome.stdout
                    if outcome.status == "ok" and (
                        check(test.input, test.output, output) if check else same(output, test.output)
                    ):
                        passed += 1
                    elif failure is None:
                        failure = Failure(number, outcome.status, *map(shortened, (*test, output)))
                if timeouts >= MAX_TIMEOUTS or (stop_at_failure and failure is not None):
                    break
    except CompileError:
        return Result(0, len(tests), compiled=False)
    return Result(passed, len(tests), failure=failure)


def judge_submission(provider: Provider, submission: Submission) -> Result:
    """The result of a submission."""
    return judge(
        provider,
        submission.program,
        submission.cases.load(),
        submission.limits,
        stop_at_failure=submission.stop_at_failure,
        batch_size=submission.batch_size,
        compare=submission.compare,
        check=python_checker(provider, submission.checker, submission.limits) if submission.checker else None,
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
    and prints 1 if the output is right. It also runs in the sandbox."""
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
