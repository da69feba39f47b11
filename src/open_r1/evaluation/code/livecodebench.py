"""LiveCodeBench (Jain et al. 2024, arXiv 2403.07974), in the schema of livecodebench/code_generation_lite.

    lcb                     the files of v4 and v5: August 2024 to January 2025, DeepSeek's and open-r1's choice
    lcb_v4, lcb_v5          what that version added
    lcb_release_v5          all problems up to that version
    lcb:2024-08..2025-01    all versions, contests in this window; months and days, both ends included

Programs have the benchmark's own limits (6 seconds and 4 GB a test) and its imports, and stop at the first failure.
"""

import calendar
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.code.judging import first_failure, judge_with, same_tokens
from open_r1.evaluation.code.pickled import unpack_text
from open_r1.evaluation.problems import BenchmarkProblem, Source, Task
from open_r1.rewards.code.judge import Case
from open_r1.rewards.code.programs import Program
from open_r1.rewards.code.sandbox import Limits

DATASET = "livecodebench/code_generation_lite"
VERSIONS = 6
LIMITS = Limits(seconds=6, memory_mb=4096)
SAMPLES = 16
NAMES = "lcb, lcb_v4, lcb_release_v5, lcb:2024-08..2025-01"
STDIN_PROMPT = (
    "{problem}\n\nWrite a Python program that reads the input from standard input and prints the answer to standard "
    "output. Do not test it on the examples. Put the whole program into one code block:\n\n"
    "```python\n# your program\n```"
)
FUNCTION_PROMPT = (
    "{problem}\n\nComplete this Python code. Put the whole result into one code block:\n\n```python\n{starter}\n```"
)
PRELUDE = """
import bisect, builtins, collections, copy, datetime, functools, heapq, io, itertools, json, math, operator
import random, re, statistics, string, sys
from typing import *
from bisect import *
from collections import *
from copy import *
from datetime import *
from functools import *
from heapq import *
from itertools import *
from math import *
from operator import *
from random import *
from re import *
from statistics import *
from string import *
from builtins import *
sys.setrecursionlimit(50000)
"""
"""What programs may use without importing it."""
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
space = {{"__name__": "program"}}
exec({prelude!r}, space)
exec(compile({source!r}, "program.py", "exec"), space)
owner = space["Solution"]() if "Solution" in space else None
function = getattr(owner, {name!r}) if owner is not None else space[{name!r}]
answers.write(json.dumps(function(*[json.loads(line) for line in lines.split("\\n")])))
answers.flush()
"""
_NAME = re.compile(r"lcb(?:_(release_)?v(\d+))?(?::(\S+)\.\.(\S+))?")


@dataclass(frozen=True)
class Tests:
    """A problem's tests as they are in its row (unpacked when they are needed), and the function that they call."""

    public: str
    private: str
    function: str | None

    def cases(self) -> list[Case]:
        """Public tests, then private ones. Raises ValueError if they cannot be read."""
        return [*_cases(self.public), *_cases(self.private)]


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
        votes=False,
    )


def read_rows(
    name: str, window: tuple[date, date] | None, rows: Sequence[Mapping[str, Any]], where: str
) -> list[BenchmarkProblem]:
    """The problems of `rows` whose contest lies in `window`. Raises `UserError` with row and column."""
    problems: list[BenchmarkProblem] = []
    for number, row in enumerate(rows, 1):
        at = f"{where}, row {number}"
        day = _contest_day(row, at) if window else None
        if window is None or day is None or window[0] <= day <= window[1]:
            problems.append(_problem(row, len(problems), at))
    if not problems:
        raise UserError(f"task {name}: {where} has no problem of a contest in this window.")
    return problems


def _problem(row: Mapping[str, Any], index: int, at: str) -> BenchmarkProblem:
    for column in ("question_content", "question_id", "public_test_cases", "private_test_cases"):
        if not isinstance(row.get(column), str) or not row[column]:
            raise UserError(f"{at}, column {column}: expected a text; LiveCodeBench's rows are those of {DATASET}.")
    tests = Tests(row["public_test_cases"], row["private_test_cases"], _function_name(row, at))
    try:
        cases = tests.cases()
    except ValueError as error:
        raise UserError(f"{at}, column private_test_cases or public_test_cases: {error}.") from error
    if not cases:
        raise UserError(f"{at}: the problem has no tests.")
    text, starter = row["question_content"], row.get("starter_code") or ""
    prompt = FUNCTION_PROMPT if starter else STDIN_PROMPT
    digest = hashlib.sha256("".join(repr((case.input, case.output)) for case in cases).encode("utf-8", "replace"))
    return BenchmarkProblem(
        index=index,
        id=row["question_id"],
        problem=text,
        prompt=prompt.format(problem=text, starter=starter),
        gold=f"{len(cases)} tests, SHA-256 {digest.hexdigest()[:12]}",
        judge=JUDGE,
        tests=tests,
        groups={name: str(row[name]) for name in ("difficulty", "platform") if row.get(name)},
    )


def what_fails(problem: BenchmarkProblem, source: str) -> str | None:
    """The first test that the program fails, None if it passes them all."""
    tests: Tests = problem.tests
    if tests.function is None:
        main = _STDIN.format(prelude=PRELUDE, source=source)
        return first_failure(Program("python", {"main.py": main}), tests.cases(), LIMITS, same_tokens)
    main = _FUNCTION.format(prelude=PRELUDE, source=source, name=tests.function)
    return first_failure(Program("python", {"main.py": main}), tests.cases(), LIMITS, _same_value)


JUDGE = judge_with(what_fails)


def _same_value(test: Case, output: str) -> bool:
    """Equal as JSON: a tuple counts as a list, as in the benchmark."""
    try:
        return bool(json.loads(output) == json.loads(test.output))
    except (ValueError, RecursionError):
        return False


def _cases(text: str) -> list[Case]:
    try:
        rows = json.loads(text if text.lstrip().startswith("[") else unpack_text(text))
        return [Case(str(row["input"]), str(row["output"])) for row in rows]
    except (KeyError, TypeError):
        raise ValueError("expected a list of tests with input and output") from None


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
