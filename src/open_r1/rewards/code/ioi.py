"""Subtasks of the International Olympiad in Informatics: a C++ function linked with the problem's grader."""

from collections.abc import Mapping
from typing import Any

from open_r1.errors import UserError
from open_r1.rewards.code.cases import Case, store
from open_r1.rewards.code.judge import Submission
from open_r1.rewards.code.programs import Program
from open_r1.rewards.code.providers import piston
from open_r1.rewards.code.sandbox import Limits


def subtask_submission(problem: Mapping[str, Any], source: str, batch_size: int = 1) -> Submission:
    """A submission with the problem's grader and the subtask's tests. Raises `UserError` if only Piston can judge the
    problem."""
    if needs_piston(problem):
        raise UserError(
            f"ioi_code: problem {problem['id']!r} has its own manager or checker, which only Piston with the "
            "cms_ioi package can run: set ioi_provider: piston."
        )
    files = {**_grader_files(problem), f"{str(problem['id']).lower()}.cpp": source}
    limits = Limits(float(problem.get("time_limit") or 5.0), _megabytes(problem.get("memory_limit")))
    return Submission(
        Program("cpp", files), store(_tests(problem)), limits, stop_at_failure=True, batch_size=batch_size
    )


def _tests(problem: Mapping[str, Any]) -> list[Case]:
    """The tests in `test_cases`: a list, or a dictionary with the names in `test_names`."""
    cases = problem["test_cases"]
    if isinstance(cases, dict):
        cases = [cases[name] for name in problem["test_names"]]
    return [Case(*case) if isinstance(case, (list, tuple)) else Case(case["input"], case["output"]) for case in cases]


def needs_piston(problem: Mapping[str, Any]) -> bool:
    """Whether the problem has its own manager or checker."""
    return any("manager" in name or "checker" in name for name in _grader_files(problem))


def _grader_files(problem: Mapping[str, Any]) -> dict[str, str]:
    return {name: text for name, text in problem.get("grader_files") or [] if text}


def _megabytes(memory_limit: Any) -> int:
    """A memory limit in megabytes. Datasets give bytes or megabytes."""
    limit = int(memory_limit or 512)
    return limit >> 20 if limit >= 1 << 20 else limit


def score_with_piston(problem: Mapping[str, Any], source: str) -> float:
    """The lowest score of the subtask's tests, 0.0 to 1.0."""
    seconds = float(problem.get("time_limit") or 5.0)
    lowest = 1.0
    for test in _tests(problem):
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
