import pytest
from kind_pairs import COMPLETIONS, PAIRS

from open_r1.rewards.grader import Grader


@pytest.fixture(scope="module")
def grader():
    grader = Grader(workers=2, seconds=20)
    yield grader
    grader.close()


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs_of_a_kind_are_decided_as_labelled(grader, kind):
    pairs = PAIRS[kind]
    verdicts = grader.grade_many(completions=[f"$\\boxed{{{a}}}$" for _, a, _ in pairs], golds=[g for g, _, _ in pairs])
    wrong = [(pair, verdict) for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.correct is not pair[2]]
    assert not wrong


def test_completions_are_decided_as_labelled(grader):
    verdicts = grader.grade_many(completions=[c for c, _, _ in COMPLETIONS], golds=[g for _, g, _ in COMPLETIONS])
    wrong = [
        (row, verdict) for row, verdict in zip(COMPLETIONS, verdicts, strict=True) if verdict.correct is not row[2]
    ]
    assert not wrong
