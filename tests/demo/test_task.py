import random
import re

import pytest

from open_r1.demo import programs, sums, task
from open_r1.demo.programs import CODE
from open_r1.demo.sums import SUMS, SumProblem
from open_r1.demo.task import split_of


def test_splits_are_disjoint_in_any_order_of_terms():
    sets = [SUMS.problems(split, 2000, seed=3) for split in ("pretrain", "train")] + [SUMS.held_out(1000)]
    task.check_disjoint(*sets)
    assert all(split_of(SumProblem(p.terms[::-1])) == split_of(p) for p in sets[0])


def test_check_disjoint_finds_a_reordered_problem():
    with pytest.raises(ValueError, match="sets 0 and 1 share 1"):
        task.check_disjoint([SumProblem((1, 2, 3, 4))], [SumProblem((4, 3, 2, 1)), SumProblem((5, 6, 7, 8))])


def test_problems_are_different_and_given_by_the_seed():
    first = SUMS.problems("train", 500, seed=1)
    assert len(set(first)) == 500
    assert first == SUMS.problems("train", 500, seed=1)
    assert first != SUMS.problems("train", 500, seed=2)


def test_careful_examples_reason_correctly_step_by_step():
    for problem in SUMS.problems("pretrain", 200, seed=0):
        text = sums.careful(problem)
        steps = re.findall(r"(\d+)\+(\d+)=(\d+)", text)
        assert len(steps) == len(problem.terms) - 1
        assert all(int(a) + int(b) == int(c) for a, b, c in steps)
        assert text.endswith(f"<answer>\n{sum(problem.terms)}\n</answer>")


def test_hasty_examples_are_short_and_wrong():
    rng = random.Random(0)
    for problem in SUMS.problems("pretrain", 200, seed=0):
        text = sums.hasty(problem, rng)
        answer = re.fullmatch(r"<think>\n\n</think>\n<answer>\n(\d+)\n</answer>", text)
        assert answer and int(answer[1]) != sum(problem.terms)


def test_mixture_has_the_share_of_haste_that_was_asked_for():
    examples = SUMS.worked_examples(2000, seed=0)
    share = sum("<think>\n\n</think>" in text for _, text in examples) / len(examples)
    assert 0.6 < share < 0.7


def test_programs_of_a_split_are_in_no_other():
    sets = [CODE.problems(split, 500, seed=3) for split in ("pretrain", "train")] + [CODE.held_out(300)]
    task.check_disjoint(*sets)


def test_careful_programs_print_what_every_test_expects_and_hasty_ones_do_not():
    rng = random.Random(0)
    for problem in CODE.problems("train", 100, seed=0):
        cases = programs.columns(problem)["verification_info"]["test_cases"]
        assert all(str(eval(problem.gold, {"x": eval(case["input"])})) == case["output"] for case in cases)
        assert f"print({problem.gold})" in programs.careful(problem)
        hasty = re.search(r"print\((.*)\)\n```", programs.hasty(problem, rng))[1]
        assert any(str(eval(hasty, {"x": eval(case["input"])})) != case["output"] for case in cases)


def test_programs_are_judged_by_their_tests():
    first, second = CODE.problems("train", 2, seed=0)
    answers = [(first, programs.careful(first)), (second, programs.hasty(second, random.Random(0)))]
    assert [verdict.correct for verdict in CODE.grade(answers)] == [True, False]
