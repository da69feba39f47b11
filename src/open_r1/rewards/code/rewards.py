"""Rewards for programs, with open-r1's names and dataset columns."""

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from open_r1.errors import UserError
from open_r1.rewards.code.cases import cases_of, store
from open_r1.rewards.code.ioi import score_with_piston, subtask_submission
from open_r1.rewards.code.judge import Result, ScoringMode, Submission, scored
from open_r1.rewards.code.programs import extract_code, language_name, program, with_includes
from open_r1.rewards.code.providers import Provider, get_provider
from open_r1.rewards.code.queue import JUDGING, Verdict
from open_r1.rewards.code.sandbox import Limits
from open_r1.rewards.format import parse_format
from open_r1.rewards.pool import cores
from open_r1.rewards.text import RowError, judged_texts, texts_of

logger = logging.getLogger(__name__)

NO_PROGRAM = -1.0
NO_COMPILE = -0.1
PROBLEMS = 128
"""Number of rows whose JSON is parsed only once, not for each completion."""


def code_reward(
    completions: list,
    verification_info: list | None = None,
    *,
    num_parallel: int = 0,
    provider_type: str = "local",
    e2b_router_url: str | None = None,
    time_limit: float = 5.0,
    memory_limit: int = 512,
    stop_at_failure: bool = False,
    wait: bool = True,
    **kwargs: Any,
) -> list[float | None]:
    """The share of test cases that the completion's program passes, 0.0 to 1.0. None for a row without test cases, or
    in a language that `provider_type` does not run.

    Each item of `verification_info` is `{"language": "python", "test_cases": [{"input", "output"}, ...]}`, or its JSON.
    Raises `RowError` for anything else. With `wait=False`, starts judging in the background and returns None for all
    rows; a later call with the same arguments returns the results.
    """
    if verification_info is None:
        raise UserError("code: the dataset has no column 'verification_info' (a language and its test_cases).")
    runner = get_provider(provider_type, e2b_router_url)
    limits = Limits(seconds=time_limit, memory_mb=memory_limit)
    texts = texts_of(completions)

    def one(row: int) -> _PendingScore | float | None:
        info = _info(row, verification_info[row])
        cases = cases_of(info.get("test_cases"), row)
        language = language_name(info.get("language") or "python")
        if not cases or not _runs(runner, language, row):
            return None
        source = extract_code(texts[row], language)
        if not source:
            return 0.0
        submission = Submission(program(source, language), store(cases), limits, stop_at_failure)
        key, verdict = JUDGING.submit(submission, provider_type, e2b_router_url, num_parallel)
        return _PendingScore(key, verdict, lambda result: result.passed / result.total)

    return _scores([one(row) for row in range(len(completions))], wait)


def binary_code_reward(completions: list, verification_info: list | None = None, **kwargs: Any) -> list[float | None]:
    """1.0 if the program passes all test cases, else 0.0. The options are those of `code_reward`."""
    shares = code_reward(completions, verification_info, **{**kwargs, "stop_at_failure": True})
    return [None if share is None else float(share == 1.0) for share in shares]


def cf_code_reward(
    completions: list,
    *,
    test_batch_size: int = 1,
    scoring_mode: ScoringMode = "weighted_sum",
    num_parallel: int = 0,
    provider_type: str = "local",
    e2b_router_url: str | None = None,
    default_language: str = "cpp",
    wait: bool = True,
    **columns: Any,
) -> list[float | None]:
    """Codeforces problems, with the columns of open-r1/codeforces (`verifiable-prompts`): `official_tests`,
    `generated_tests`, `time_limit` (s), `memory_limit` (MB), `language`, `generated_checker`, `input_mode`.

    `scoring_mode` determines the score. -1.0 without a program, -0.1 if it does not compile, None for a row without
    test cases or in a language that `provider_type` does not run.
    """
    if columns.get("official_tests") is None:
        raise UserError("cf_code: the dataset has no column 'official_tests'.")
    runner = get_provider(provider_type, e2b_router_url)
    texts = texts_of(completions)

    def one(row: int) -> _PendingScore | float | None:
        problem = _row(columns, row)
        if problem.get("input_mode") == "file":
            raise RowError(row, "input_mode is 'file', but only 'stdio' is supported: filter out such rows.")
        cases = cases_of(problem["official_tests"], row) + cases_of(problem.get("generated_tests"), row)
        language = language_name(problem.get("language") or default_language)
        if not cases or not _runs(runner, language, row):
            return None
        source = extract_code(texts[row], language)
        if not source:
            return NO_PROGRAM
        limits = Limits(float(problem.get("time_limit") or 5.0), int(problem.get("memory_limit") or 512))
        checker = problem.get("generated_checker")
        submission = Submission(
            program(source, language),
            store(cases),
            limits,
            stop_at_failure=scoring_mode == "pass_fail",
            batch_size=test_batch_size,
            checker=checker or None,
        )
        key, verdict = JUDGING.submit(submission, provider_type, e2b_router_url, num_parallel)
        return _PendingScore(
            key, verdict, lambda result: scored(result, scoring_mode) if result.compiled else NO_COMPILE
        )

    return _scores([one(row) for row in range(len(completions))], wait)


def ioi_code_reward(
    completions: list,
    *,
    test_batch_size: int = 1,
    num_parallel: int = 0,
    provider_type: str = "local",
    wait: bool = True,
    **columns: Any,
) -> list[float | None]:
    """IOI subtasks in C++, with the columns of open-r1/ioi (`id`, `grader_files`, `test_names`, `test_cases`,
    `time_limit`, `memory_limit`, `score_precision`): the lowest score of its tests, 0.0 to 1.0; None without tests."""
    if columns.get("id") is None:
        raise UserError("ioi_code: the dataset has no column 'id'.")
    if provider_type not in ("local", "unsafe", "piston"):
        raise UserError(f"ioi_provider is {provider_type!r}: it must be 'local', 'unsafe' or 'piston'.")
    texts = texts_of(completions)

    def one(row: int) -> _PendingScore | float | None:
        problem = _row(columns, row)
        if not problem.get("test_cases"):
            return None
        source = with_includes(extract_code(texts[row], "cpp"), str(problem["id"]))
        if not source:
            return 0.0
        if provider_type == "piston":
            return score_with_piston(problem, source) if wait else None
        submission = subtask_submission(problem, source, test_batch_size)
        key, verdict = JUDGING.submit(submission, provider_type, num_parallel=num_parallel)
        return _PendingScore(key, verdict, lambda result: float(result.compiled and result.passed == result.total))

    with ThreadPoolExecutor(num_parallel or cores()) as threads:  # that wait for servers
        return _scores(list(threads.map(one, range(len(completions)))), wait)


def get_code_format_reward(language: str = "python") -> Callable[..., list[float]]:
    """`format_reward`, but the answer must also have a fenced code block, in the language of the row's `language`
    column or, by default, in `language`."""

    def code_format_reward(
        completions: list, prompts: list | None = None, language: list | str | None = language, **kwargs: Any
    ) -> list[float]:
        """1.0 for the R1 template with a program as its answer, else 0.0."""
        texts = judged_texts(completions, prompts, kwargs.get("prefills"))
        languages = language if isinstance(language, list) else [language] * len(texts)
        blocks = [parse_format(text) for text in texts]
        return [
            float(block is not None and bool(extract_code(block[1], lang or "python").strip()))
            for block, lang in zip(blocks, languages, strict=True)
        ]

    return code_format_reward


_parsed = lru_cache(PROBLEMS)(json.loads)


def _info(row: int, value: Any) -> dict[str, Any]:
    shape = 'it must be {"language": "python", "test_cases": [{"input": ..., "output": ...}]} or its JSON.'
    if isinstance(value, str) and value.strip():
        try:
            value = _parsed(value)
        except json.JSONDecodeError as error:
            raise RowError(row, f"verification_info is {value[:80]!r}, not JSON ({error}): {shape}") from None
    elif isinstance(value, str):
        value = None
    if value is not None and not isinstance(value, dict):
        raise RowError(row, f"verification_info is {value!r:.80}: {shape}")
    return value or {}


def _runs(runner: Provider, language: str, row: int) -> bool:
    """Whether the provider runs `language`. If not, warns: the row gets no reward rather than a wrong one."""
    known = runner.languages is None or language in runner.languages
    if not known:
        logger.warning(
            "code rewards: row %d needs language %r, but this provider runs only %s, so the row gets no reward. "
            "Set code_provider: piston for other languages.",
            row,
            language,
            ", ".join(sorted(runner.languages or ())),
        )
    return known


def _row(columns: dict[str, Any], row: int) -> dict[str, Any]:
    return {name: values[row] for name, values in columns.items() if isinstance(values, list)}


@dataclass(frozen=True)
class _PendingScore:
    """A verdict that may still be pending, and how to compute the score from it."""

    key: bytes
    verdict: Verdict
    score: Callable[[Result], float]


def _scores(scores: Sequence[_PendingScore | float | None], wait: bool) -> list[float | None]:
    """The scores, after waiting for pending ones; without `wait`, all None."""
    if not wait:
        return [None] * len(scores)
    try:
        return [s.score(s.verdict()) if isinstance(s, _PendingScore) else s for s in scores]
    finally:
        JUDGING.forget([s.key for s in scores if isinstance(s, _PendingScore)])
