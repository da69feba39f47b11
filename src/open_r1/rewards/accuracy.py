"""Whether the final answer is right."""

import logging
from typing import Any

from open_r1.errors import UserError
from open_r1.rewards.grader import Verdict, grade_many
from open_r1.rewards.text import judged_texts

logger = logging.getLogger(__name__)


def golds_of(solution: list | None, answer: list | None, rows: int) -> list[str]:
    """The gold answer of each row as text: `answer` if it is not empty, else `solution`."""
    if solution is None and answer is None:
        raise UserError("accuracy: the dataset has neither a column 'answer' nor a column 'solution'.")
    solutions = solution if solution is not None else [None] * rows
    answers = answer if answer is not None else [None] * rows
    for column, values in (("solution", solutions), ("answer", answers)):
        if len(values) != rows:
            raise UserError(f"accuracy: column {column!r} has {len(values)} values for {rows} completions.")
    return [gold_text(a) or gold_text(s) for a, s in zip(answers, solutions, strict=True)]


def gold_text(value: Any) -> str:
    """A cell of a gold column as text: a list's items are joined by commas, and None and NaN are empty."""
    if isinstance(value, list | tuple):
        return ", ".join(text for item in value if (text := gold_text(item)))
    if value is None or value != value:  # NaN, as pandas fills gaps, equals nothing
        return ""
    return str(value).strip()


def grade_rows(
    completions: list,
    solution: list | None,
    answer: list | None,
    prompts: list | None = None,
    prefills: list[str] | None = None,
) -> list[Verdict]:
    """The verdict on each row, with the prefill of the prompt in front. One warning counts rows that cannot be
    graded."""
    golds = golds_of(solution, answer, len(completions))
    verdicts = grade_many(completions=judged_texts(completions, prompts, prefills), golds=golds)
    ungradable = [verdict.reason for verdict in verdicts if verdict.correct is None]
    if ungradable:
        logger.warning(
            "accuracy: %d of %d completions could not be graded and get no reward; the first: %s",
            len(ungradable),
            len(verdicts),
            ungradable[0],
        )
    return verdicts


def accuracy_reward(
    completions: list, solution: list | None = None, answer: list | None = None, **kwargs: Any
) -> list[float | None]:
    """1.0 if the final answer equals the right one (`answer`, else `solution`), 0.0 if not, None if undecided."""
    verdicts = grade_rows(completions, solution, answer, kwargs.get("prompts"), kwargs.get("prefills"))
    return [None if verdict.correct is None else float(verdict.correct) for verdict in verdicts]
