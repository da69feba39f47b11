"""Is the final answer right?"""

from typing import Any

from open_r1.errors import UserError
from open_r1.rewards.grader import grade_many
from open_r1.rewards.text import text_of


def golds_of(solution: list | None, answer: list | None, rows: int) -> list[str]:
    """Gold answer a row: `answer` where it is not empty, else `solution`."""
    if solution is None and answer is None:
        raise UserError("accuracy: the dataset has neither a column 'answer' nor a column 'solution'.")
    solutions = solution if solution is not None else [None] * rows
    answers = answer if answer is not None else [None] * rows
    return [
        str(a) if a is not None and str(a).strip() else str(s if s is not None else "")
        for a, s in zip(answers, solutions, strict=True)
    ]


def accuracy_reward(
    completions: list, solution: list | None = None, answer: list | None = None, **kwargs: Any
) -> list[float | None]:
    """1.0 if the final answer equals the gold, 0.0 if not, None if that cannot be decided."""
    golds = golds_of(solution, answer, len(completions))
    verdicts = grade_many(completions=[text_of(completion) for completion in completions], golds=golds)
    return [None if verdict.correct is None else float(verdict.correct) for verdict in verdicts]
