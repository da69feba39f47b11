import random
import re

import pytest

from open_r1.demo import task
from open_r1.demo.task import SumProblem


def test_splits_are_disjoint_in_any_order_of_terms():
    sets = [task.problems(split, 2000, seed=3) for split in ("pretrain", "train")] + [task.held_out(1000)]
    task.check_disjoint(*sets)
    assert all(SumProblem(p.terms[::-1]).split == p.split for p in sets[0])


def test_check_disjoint_finds_a_reordered_problem():
    with pytest.raises(ValueError, match="sets 0 and 1 share 1"):
        task.check_disjoint([SumProblem((1, 2, 3, 4))], [SumProblem((4, 3, 2, 1)), SumProblem((5, 6, 7, 8))])


def test_problems_are_different_and_given_by_the_seed():
    first = task.problems("train", 500, seed=1)
    assert len(set(first)) == 500
    assert first == task.problems("train", 500, seed=1)
    assert first != task.problems("train", 500, seed=2)


def test_careful_examples_reason_correctly_step_by_step():
    for problem in task.problems("pretrain", 200, seed=0):
        text = task.careful(problem)
        steps = re.findall(r"(\d+)\+(\d+)=(\d+)", text)
        assert len(steps) == len(problem.terms) - 1
        assert all(int(a) + int(b) == int(c) for a, b, c in steps)
        assert text.endswith(f"<answer>\n{sum(problem.terms)}\n</answer>")


def test_hasty_examples_are_short_and_wrong():
    rng = random.Random(0)
    for problem in task.problems("pretrain", 200, seed=0):
        text = task.hasty(problem, rng)
        answer = re.fullmatch(r"<think>\n\n</think>\n<answer>\n(\d+)\n</answer>", text)
        assert answer and int(answer[1]) != sum(problem.terms)


def test_mixture_has_the_share_of_haste_that_was_asked_for():
    examples = task.worked_examples(2000, hasty_share=0.6, seed=0)
    share = sum("<think>\n\n</think>" in text for _, text in examples) / len(examples)
    assert 0.55 < share < 0.65
