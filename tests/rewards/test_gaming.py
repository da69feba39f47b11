"""What a reader with bad intent tried on the grader: none of it may pay, and none of it may stop the run."""

import os

import pytest

from open_r1.rewards import grade
from open_r1.rewards.accuracy import accuracy_reward
from open_r1.rewards.grader import Grader
from open_r1.rewards.pool import Pool


@pytest.mark.parametrize("listing", ["A. B. C. D", "A) or B) or C)", "(A): or (B)", "A: x, B: y"])
def test_naming_every_choice_does_not_hit(listing):
    assert grade(f"\\boxed{{{listing}}}", "A").correct is False


@pytest.mark.parametrize("one", ["A", "(A)", "A. 42", "A. Vitamin C", "A) a right angle"])
def test_naming_one_choice_does(one):
    assert grade(f"\\boxed{{{one}}}", "A").correct is True


@pytest.mark.parametrize(
    "hedge",
    [
        "The answer is either 5 or 6",
        "The answer is $5$ or $6$",
        "The answer is between 5 and 10",
        "the answer is maybe 5, maybe 6, maybe 7",
        "<answer>The answer is 5, but could be 6, or 7 </answer>",
    ],
)
def test_a_hedge_is_not_its_first_value(hedge):
    assert grade(hedge, "5").correct is False


def test_an_answer_inside_unfinished_reasoning_is_none():
    assert grade("<think>so \\boxed{5}", "5").correct is False
    guess = [[{"role": "assistant", "content": "maybe \\boxed{5}? let me check"}]]
    assert accuracy_reward(guess, solution=["5"], prompts=["q<think>\n"], prefills=["<think>\n"]) == [0.0]
    done = [[{"role": "assistant", "content": "check</think>\\boxed{5}"}]]
    assert accuracy_reward(done, solution=["5"], prompts=["q<think>\n"], prefills=["<think>\n"]) == [1.0]


def test_a_thousand_boxes_in_each_other_stop_nothing():
    assert grade("\\boxed{" * 1200 + "}" * 1200, "5").correct is not True
    assert grade("\\boxed{\\boxed{5}}", "5").correct is True


def test_a_gap_that_pandas_filled_is_no_gold():
    right = [[{"role": "assistant", "content": "\\boxed{5}"}]]
    assert accuracy_reward(right, answer=[float("nan")], solution=["5"]) == [1.0]


def test_a_worker_that_once_cannot_start_is_tried_again(monkeypatch):
    grader = Grader(workers=1, seconds=2)
    start, failures = Pool._start, [RuntimeError("no memory")]

    def once_failing(self):
        if failures:
            raise failures.pop()
        return start(self)

    monkeypatch.setattr(Pool, "_start", once_failing)
    pair = {"completions": ["\\boxed{\\frac{1}{x+1}}"], "golds": ["\\frac{1}{1+x}"]}
    with pytest.raises(RuntimeError, match="no memory"):
        grader.grade_many(**pair)
    assert grader.grade_many(**pair)[0].correct is True
    grader.close()


def test_a_forked_child_does_not_wait_for_its_parents_workers():
    grader = Grader(workers=1, seconds=2)
    pair = {"completions": ["\\boxed{\\frac{2}{x+1}}"], "golds": ["\\frac{2}{1+x}"]}
    grader.prefetch(**pair)
    child = os.fork()
    if child == 0:
        os._exit(0 if grader.grade_many(**pair)[0].correct else 1)
    assert os.waitpid(child, 0)[1] == 0
    grader.close()
