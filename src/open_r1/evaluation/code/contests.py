"""Codeforces and IOI problems as benchmarks, in the schemas of open-r1/codeforces and open-r1/ioi.

Verdicts are those of the rewards `cf_code` and `ioi_code`; a problem (of IOI: a subtask) counts as solved when every
test passes. IOI rows need a column `test_cases`, which open-r1/ioi-test-cases has.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.code.judging import failure_of, judge_with, required_text
from open_r1.evaluation.problems import BenchmarkProblem, Source, Task
from open_r1.rewards.code.cases import Case, cases_of, store
from open_r1.rewards.code.ioi import needs_piston, score_with_piston, subtask_submission
from open_r1.rewards.code.judge import Submission
from open_r1.rewards.code.programs import extract_code, language_name, program, with_includes
from open_r1.rewards.code.sandbox import Limits
from open_r1.rewards.text import RowError

Rows = Sequence[Mapping[str, Any]]
SAMPLES = 4
RATINGS = 400
"""Width of the bands by which Codeforces problems are grouped."""


def codeforces() -> Task:
    """Codeforces, the test split of the prompts whose tests are complete."""
    return Task(
        name="codeforces",
        source=Source("open-r1/codeforces", "test", "verifiable-prompts"),
        samples=SAMPLES,
        files=("codeforces",),
        prompt="{problem}",
        read=_codeforces_rows,
    )


def ioi() -> Task:
    """IOI 2024, a problem for each subtask."""
    return Task(
        name="ioi",
        source=Source("open-r1/ioi", "test", lacks="tests"),
        samples=SAMPLES,
        files=("ioi",),
        prompt="{problem}",
        read=_ioi_rows,
    )


def _codeforces_rows(rows: Rows, where: str) -> Iterator[BenchmarkProblem]:
    for index, row in enumerate(rows):
        at = f"{where}, row {index + 1}"
        prompt = required_text(row, "prompt", at)
        language = language_name(row.get("language") or "cpp")
        if row.get("input_mode") == "file":
            raise UserError(f"{at}, column input_mode: 'file', but only 'stdio' is supported: filter out such rows.")
        tests = _tests(row.get("official_tests"), at) + _tests(row.get("generated_tests"), at)
        if not tests:
            raise UserError(f"{at}, column official_tests: the problem has no tests.")
        rating = row.get("rating")
        band = None if rating is None else int(rating) // RATINGS * RATINGS
        groups = {"language": language}
        if band is not None:
            groups["rating"] = f"{band} to {band + RATINGS - 1}"
        details = {**row, "language": language, "tests": tests}
        id = f"{required_text(row, 'id', at)}-{language}"
        gold = _digest([(case.input, case.output) for case in tests], len(tests))
        judge = judge_with(_fails, partial(_program_in, language))
        yield BenchmarkProblem(index, id, prompt, prompt, gold, judge, tests=details, groups=groups)


def _fails(problem: BenchmarkProblem, source: str) -> str | None:
    row = problem.tests
    limits = Limits(float(row.get("time_limit") or 5.0), memory_mb=int(row.get("memory_limit") or 512))
    checker = row.get("generated_checker") or None
    code = program(source, row["language"])
    return failure_of(Submission(code, store(row["tests"]), limits, stop_at_failure=True, checker=checker))


def _ioi_rows(rows: Rows, where: str) -> Iterator[BenchmarkProblem]:
    for index, row in enumerate(rows):
        at = f"{where}, row {index + 1}"
        prompt = required_text(row, "problem", at)
        if not row.get("test_cases"):
            raise UserError(
                f"{at}, column test_cases: it is empty; open-r1/ioi-test-cases has the tests of open-r1/ioi."
            )
        name = required_text(row, "id", at)
        if needs_piston(row) and not os.environ.get("PISTON_ENDPOINTS"):
            raise UserError(
                f"{at}: problem {name!r} has its own manager or checker, which only Piston with the cms_ioi package "
                "can run: set PISTON_ENDPOINTS, or filter out such rows."
            )
        year, subtask = row.get("year"), row.get("subtask")
        yield BenchmarkProblem(
            index=index,
            id="-".join(str(part) for part in (year, name, subtask) if part not in (None, "")),
            problem=prompt,
            prompt=prompt,
            gold=_digest(row["test_cases"], len(row["test_cases"])),
            judge=judge_with(_fails_subtask, partial(_with_headers, name)),
            tests=dict(row),
            groups={"problem": name},
        )


def _program_in(language: str, completion: str) -> str | None:
    return extract_code(completion, language) or None


def _with_headers(name: str, completion: str) -> str | None:
    return with_includes(extract_code(completion, "cpp"), name) or None


def _fails_subtask(problem: BenchmarkProblem, source: str) -> str | None:
    row = problem.tests
    if needs_piston(row):
        score = score_with_piston(row, source)
        return None if score == 1.0 else f"the subtask scores {score:g}: a test fails, or the program does not compile"
    return failure_of(subtask_submission(row, source))


def _tests(cases: Any, at: str) -> list[Case]:
    try:
        return cases_of(cases, 0)
    except RowError as error:
        raise UserError(f"{at}: {error}") from error


def _digest(tests: Any, count: int) -> str:
    text = json.dumps(tests, default=str, ensure_ascii=True)
    return f"{count} tests, SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"
