"""Right, wrong or ungradable: one completion against one gold answer."""

from dataclasses import dataclass

from open_r1.rewards import answers, fastpath

MAX_ANSWER = 2_000


@dataclass(frozen=True)
class Verdict:
    """`correct` is None when it could not be decided: the gold is unreadable, or a limit was hit."""

    correct: bool | None
    extracted: str | None
    reason: str


def grade(*, completion: str, gold: str) -> Verdict:
    """Grades the final answer of `completion` against `gold` (an answer, or a solution that ends in one)."""
    return grade_many(completions=[completion], golds=[gold])[0]


def grade_many(*, completions: list[str], golds: list[str]) -> list[Verdict]:
    """`grade` for many, in parallel."""
    return [_grade(completion, gold) for completion, gold in zip(completions, golds, strict=True)]


def _grade(completion: str, gold: str) -> Verdict:
    gold_answer = answers.extract_gold(gold)
    if not gold_answer:
        return Verdict(None, None, "the gold answer is empty")
    answer = answers.extract_answer(completion)
    if answer is None:
        return Verdict(False, None, "the completion gives no answer")
    settled = fastpath.settle(answer, gold_answer)
    if settled is not None:
        return Verdict(settled, answer, "compared as text or number")
    from open_r1.rewards.algebra import equal

    return Verdict(equal(answer, gold_answer), answer, "compared with math-verify")
