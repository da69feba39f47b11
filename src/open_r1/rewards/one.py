"""Grades one completion against one answer, for use from Python."""

from open_r1.errors import UserError
from open_r1.rewards.grader import Verdict, grade_many


def grade(completion: str, answer: str | int | float) -> Verdict:
    """Whether the final answer of `completion` equals `answer`, which is an answer or a solution that ends in one.

    `correct` is True, False, or None where that cannot be decided; `extracted` is the answer that was found, and
    `reason` says how they were compared. Raises `UserError` for anything but text.
    """
    if not isinstance(completion, str):
        raise UserError(f"completion is a {type(completion).__name__}: expected text (of a message, its content).")
    if not isinstance(answer, str | int | float) or isinstance(answer, bool):
        raise UserError(f"answer is a {type(answer).__name__}: expected text or a number.")
    return grade_many(completions=[completion], golds=[str(answer)])[0]
