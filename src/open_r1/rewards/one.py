"""`open_r1.grade`: grades one completion against one answer."""

from open_r1.errors import UserError
from open_r1.rewards.grader import Verdict, grade_many


def grade(completion: str, answer: str | int | float) -> Verdict:
    """Checks whether the final answer of a completion equals the right answer.

    Args:
        completion: The text of a completion.
        answer: The right answer, or a solution that ends with it.

    Returns:
        `correct` is True, False, or None if it cannot be decided. `extracted` is the answer that was found in the
        completion. `reason` says how the two were compared.

    Raises:
        UserError: `completion` is not text, or `answer` is neither text nor a number.
    """
    if not isinstance(completion, str):
        raise UserError(f"completion is a {type(completion).__name__}: expected text (the content of a message).")
    if not isinstance(answer, str | int | float) or isinstance(answer, bool):
        raise UserError(f"answer is a {type(answer).__name__}: expected text or a number.")
    return grade_many(completions=[completion], golds=[str(answer)])[0]
