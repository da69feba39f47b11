"""Subtasks of the International Olympiad in Informatics: a C++ function linked with the problem's grader."""

from collections.abc import Mapping
from typing import Any

from open_r1.errors import UserError
from open_r1.rewards.code.judge import Case, judge
from open_r1.rewards.code.local import LocalProvider
from open_r1.rewards.code.programs import Program
from open_r1.rewards.code.providers import piston
from open_r1.rewards.code.sandbox import Limits


def score_subtask(problem: dict[str, Any], source: str, *, provider: str, batch_size: int = 1) -> float | None:
    """Lowest score of the subtask's tests, each 0.0 to 1.0; None without tests, 0.0 without a program."""
    if not problem.get("test_cases"):
        return None
    tests = subtask_tests(problem)
    if not source:
        return 0.0
    if provider == "piston":
        return _with_piston(problem, source, tests)
    if provider not in ("local", "unsafe"):
        raise UserError(f"ioi_provider is {provider!r}: it must be 'local', 'unsafe' or 'piston'.")
    if needs_piston(problem):
        raise UserError(
            f"ioi_code: problem {problem['id']!r} has its own manager or checker, which only Piston with the "
            "cms_ioi package can run: set ioi_provider: piston."
        )
    result = judge(
        LocalProvider(unsafe=provider == "unsafe"),
        subtask_program(problem, source),
        tests,
        subtask_limits(problem),
        stop_at_failure=True,
        batch_size=batch_size,
    )
    return float(result.compiled and result.passed == result.total)


def subtask_tests(problem: Mapping[str, Any]) -> list[Case]:
    """The tests in a row's `test_cases`: a list, or a dictionary by the names in `test_names`."""
    cases = problem["test_cases"]
    if isinstance(cases, dict):
        cases = [cases[name] for name in problem["test_names"]]
    return [Case(*case) if isinstance(case, (list, tuple)) else Case(case["input"], case["output"]) for case in cases]


def subtask_program(problem: Mapping[str, Any], source: str) -> Program:
    """A submission with the problem's grader."""
    return Program("cpp", {**_grader_files(problem), f"{str(problem['id']).lower()}.cpp": source})


def subtask_limits(problem: Mapping[str, Any]) -> Limits:
    """Time and memory of a test."""
    return Limits(float(problem.get("time_limit") or 5.0), _megabytes(problem.get("memory_limit")))


def needs_piston(problem: Mapping[str, Any]) -> bool:
    """Whether a manager or a checker of the problem's own decides."""
    return any("manager" in name or "checker" in name for name in _grader_files(problem))


def _grader_files(problem: Mapping[str, Any]) -> dict[str, str]:
    return {name: text for name, text in problem.get("grader_files") or [] if text}


def _megabytes(memory_limit: Any) -> int:
    """Datasets give bytes or megabytes."""
    limit = int(memory_limit or 512)
    return limit >> 20 if limit >= 1 << 20 else limit


def _with_piston(problem: dict[str, Any], source: str, tests: list[Case]) -> float:
    seconds = float(problem.get("time_limit") or 5.0)
    lowest = 1.0
    for test in tests:
        files = {
            f"graders/{str(problem['id']).lower()}.cpp": source,
            "input.txt": test.input,
            "correct_output.txt": test.output,
            **_grader_files(problem),
        }
        reply = piston().execute(
            {
                "language": "cms_ioi",
                "version": "*",
                "files": [{"name": name, "content": text} for name, text in files.items() if text],
                "run_timeout": round((seconds + 3) * 1000),
                "run_memory_limit": problem.get("memory_limit"),
            }
        )
        if reply.get("compile", {}).get("code"):
            return 0.0
        printed = reply["run"].get("stdout", "").split()
        lowest = min(lowest, float(printed[0]) if printed else 0.0)
        if lowest == 0.0:
            break
    return round(lowest, int(problem.get("score_precision", 2)))
