"""LiveCodeBench (Jain et al. 2024, arXiv 2403.07974), in the schema of livecodebench/code_generation_lite.

    lcb                     the files of v4 and v5: August 2024 to January 2025, DeepSeek's and open-r1's choice
    lcb_v4, lcb_v5          what that version added
    lcb_release_v5          all problems up to that version
    lcb:2024-08..2025-01    all versions, contests in this window; months and days, both ends included

Programs have the benchmark's own limits (6 seconds and 4 GB per test) and its imports, and stop at the first failure.
"""

import calendar
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache, partial
from threading import Lock
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.code.harness import python_program
from open_r1.evaluation.code.judging import Ungradable, failure_of, judge_with
from open_r1.evaluation.code.pickled import unpack_text
from open_r1.evaluation.problems import BenchmarkProblem, Source, Task
from open_r1.rewards.code.cases import Case, StoredCases, store
from open_r1.rewards.code.comparing import Comparison
from open_r1.rewards.code.judge import Submission
from open_r1.rewards.code.programs import Program
from open_r1.rewards.code.queue import JUDGING
from open_r1.rewards.code.sandbox import Limits

Rows = Sequence[Mapping[str, Any]]
DATASET = "livecodebench/code_generation_lite"
VERSIONS = 6
LIMITS = Limits(seconds=6, memory_mb=4096)
SAMPLES = 16
TEST_COLUMNS = ("public_test_cases", "private_test_cases")
CHECKED = 1 << 20
"""Packed tests with at most this many characters are read in advance; larger ones only when a program needs them."""
NAMES = "lcb, lcb_v4, lcb_release_v5, lcb:2024-08..2025-01"
STDIN_PROMPT = (
    "{problem}\n\nWrite a Python program that reads the input from standard input and prints the answer to standard "
    "output. Do not test it on the examples. Put the whole program into one code block:\n\n"
    "```python\n# your program\n```"
)
FUNCTION_PROMPT = (
    "{problem}\n\nComplete this Python code. Put the whole result into one code block:\n\n```python\n{starter}\n```"
)
_MODULES = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json"
)
PRELUDE = "\n".join(
    [
        *(f"from {module} import *" for module in f"{_MODULES} builtins typing".split()),
        f"import {', '.join(_MODULES.split())}",
        "sys.setrecursionlimit(50000)",
        "sys.set_int_max_str_digits(50000)",
    ]
)
"""Imports that programs get, in the benchmark's order: `bisect` is the module, and `Counter` is typing's."""
_STDIN = """
import sys
space = {{"__name__": "__main__"}}
exec({prelude!r}, space)
try:
    exec(compile({source!r}, "program.py", "exec"), space)
except SystemExit:
    pass
sys.stdout.flush()
"""
_FUNCTION = """
import json, os, sys
lines = sys.stdin.read()
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

class Unlike(Exception):
    pass

def plain(value):
    if type(value).__module__ == "numpy" and value.shape == ():
        value = value.item()
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {{key: plain(item) for key, item in value.items()}}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise Unlike

space = {{"__name__": "program"}}
exec({prelude!r}, space)
exec(compile({source!r}, "program.py", "exec"), space)
owner = space["Solution"]() if "Solution" in space else None
function = getattr(owner, {name!r}) if owner is not None else space[{name!r}]
result = function(*[json.loads(line) for line in lines.split("\\n")])
try:
    text = json.dumps(plain(list(result) if isinstance(result, tuple) else result))
except Unlike:
    text = "no value of JSON: " + repr(result)
answers.write(text)
answers.flush()
"""
_NAME = re.compile(r"lcb(?:_(release_)?v(\d+))?(?::(\S+)\.\.(\S+))?")


@dataclass(frozen=True, eq=False)
class Tests:
    """The location of a problem's tests, which can be many megabytes, and the function that they call."""

    rows: Rows
    number: int
    function: str | None

    def cases(self) -> list[Case]:
        """Public tests, then private ones. Raises `Ungradable` if they cannot be read."""
        row = self.rows[self.number]
        return [case for column in TEST_COLUMNS for case in _cases(row[column], column)]

    def stored(self) -> StoredCases:
        """The same, for the processes that judge."""
        with _READING:
            return _store(self)


_READING = Lock()


@lru_cache(maxsize=2)  # the samples of a problem are judged one after another
def _store(tests: Tests) -> StoredCases:
    return store(tests.cases())


def is_livecodebench(name: str) -> bool:
    """Whether a task's name is one of these."""
    return name.startswith(("lcb:", "lcb_")) or name == "lcb"


def livecodebench(name: str) -> Task:
    """The task of this name. Raises `UserError`."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(f"tasks: {name!r} is no version of LiveCodeBench: expected one like {NAMES}.")
    release, number, first, last = match.groups()
    if number is not None and not 1 <= int(number) <= VERSIONS:
        raise UserError(f"tasks: {name!r}: LiveCodeBench has the versions v1 to v{VERSIONS}.")
    if number is not None:
        versions = range(1 if release else int(number), int(number) + 1)
    else:
        versions = range(4, 6) if first is None else range(1, VERSIONS + 1)
    window = None if first is None else (_day(name, first, last=False), _day(name, last, last=True))
    if window is not None and window[0] > window[1]:
        raise UserError(f"tasks: {name!r}: the window ends before it begins.")
    stems = [f"test{'' if version == 1 else version}" for version in versions]
    return Task(
        name=name,
        source=Source(DATASET, "test", data_files=tuple(f"{stem}.jsonl" for stem in stems)),
        samples=SAMPLES,
        files=(name, name.partition(":")[0]) if window else (name,),
        prompt=STDIN_PROMPT,
        read=partial(read_rows, name, window),
    )


def read_rows(name: str, window: tuple[date, date] | None, rows: Rows, where: str) -> Iterator[BenchmarkProblem]:
    """The problems of `rows` whose contest is in `window`. Raises `UserError` with row and column."""
    index = 0
    for number, row in enumerate(rows):
        at = f"{where}, row {number + 1}"
        day = _contest_day(row, at) if window else None
        if window is None or day is None or window[0] <= day <= window[1]:
            yield _problem(row, index, at, Tests(rows, number, _function_name(row, at)))
            index += 1
    if index == 0:
        raise UserError(f"task {name}: {where} has no problem of a contest in this window.")


def _problem(row: Mapping[str, Any], index: int, at: str, tests: Tests) -> BenchmarkProblem:
    for column in ("question_content", "question_id", *TEST_COLUMNS):
        if not isinstance(row.get(column), str) or not row[column]:
            raise UserError(f"{at}, column {column}: expected a text; LiveCodeBench's rows are those of {DATASET}.")
    packed = [row[column] for column in TEST_COLUMNS]
    if sum(map(len, packed)) <= CHECKED:
        try:
            if not tests.cases():
                raise UserError(f"{at}: the problem has no tests.")
        except Ungradable as error:
            raise UserError(f"{at}, {error}.") from error
    text, starter = row["question_content"], row.get("starter_code") or ""
    prompt = FUNCTION_PROMPT if starter else STDIN_PROMPT
    digest = hashlib.sha256("\0".join(packed).encode("utf-8", "replace"))
    return BenchmarkProblem(
        index=index,
        id=row["question_id"],
        problem=text,
        prompt=prompt.format(problem=text, starter=starter),
        gold=f"tests, SHA-256 {digest.hexdigest()[:12]}",
        judge=JUDGE,
        tests=tests,
        groups={name: str(row[name]) for name in ("difficulty", "platform") if row.get(name)},
    )


def what_fails(problem: BenchmarkProblem, source: str) -> str | None:
    """The first test that the program fails, None if it passes them all."""
    tests: Tests = problem.tests
    if tests.function is None:
        program = python_program(_STDIN.format(prelude=PRELUDE, source=source))
    else:
        program = _calling(source, tests.function)
    compare: Comparison = "numbers" if tests.function is None else "json"
    return failure_of(Submission(program, tests.stored(), LIMITS, stop_at_failure=True, compare=compare))


JUDGE = judge_with(what_fails)


def result_of(source: str, function: str, arguments: str) -> str:
    """The return value of the program's function, as JSON; "" if it returns nothing."""
    return JUDGING.run(_calling(source, function), LIMITS, arguments).stdout


def _calling(source: str, function: str) -> Program:
    return python_program(_FUNCTION.format(prelude=PRELUDE, source=source, name=function))


def _cases(text: str, column: str) -> list[Case]:
    try:
        rows = json.loads(text if text.lstrip().startswith("[") else unpack_text(text))
        return [Case(str(row["input"]), str(row["output"])) for row in rows]
    except (KeyError, TypeError):
        raise Ungradable(f"column {column}: expected a list of tests with input and output") from None
    except ValueError as error:
        raise Ungradable(f"column {column}: {error}") from None


def _function_name(row: Mapping[str, Any], at: str) -> str | None:
    try:
        metadata = json.loads(row.get("metadata") or "{}")
        name = metadata.get("func_name")
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{at}, column metadata: expected a JSON object, with func_name for a function.") from None
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise UserError(f"{at}, column metadata: func_name is {name!r}, which is no name of a function.")
    return name


def _contest_day(row: Mapping[str, Any], at: str) -> date:
    value = str(row.get("contest_date"))
    try:
        return date.fromisoformat(value[:10])
    except ValueError:
        raise UserError(f"{at}, column contest_date: {value!r} is no date.") from None


def _day(name: str, text: str, *, last: bool) -> date:
    try:
        if len(text) == 7:
            year, month = int(text[:4]), int(text[5:])
            return date.fromisoformat(f"{text}-{calendar.monthrange(year, month)[1] if last else 1:02d}")
        return date.fromisoformat(text)
    except (ValueError, calendar.IllegalMonthError):
        raise UserError(f"tasks: {name!r}: {text!r} is no month or day, as in lcb:2024-08..2025-01-31.") from None
