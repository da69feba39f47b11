"""Benchmarks that a reward judges."""

import json

import pytest

from open_r1 import evaluate
from open_r1.errors import UserError
from open_r1.evaluation.reward_judge import with_reward
from open_r1.evaluation.tasks import find_task, load_problems
from open_r1.options.columns import ColumnOptions

REWARD = """
def even(completions, answer, largest, prompts, **columns):
    assert all("number" in p[0]["content"] for p in prompts)
    return [None if m is None else 0.5 if "half" in text(c) else float(text(c).isdigit() and int(text(c)) % 2 == 0
        and int(text(c)) <= m) for c, m in zip(completions, largest)]


def text(completion):
    return completion[0]["content"]
"""


@pytest.fixture
def task(tmp_path):
    rows = [
        {"problem": "An even number up to 10.", "answer": "4", "largest": 10, "level": 1},
        {"problem": "An even number up to 20.", "answer": "4", "largest": 20, "level": 2},
        {"problem": "An even number.", "answer": "4", "largest": None, "level": None},
    ]
    (tmp_path / "even.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "reward.py").write_text(REWARD)
    return with_reward(find_task(str(tmp_path / "even.jsonl")), f"{tmp_path}/reward.py:even")


def test_any_answer_that_the_reward_takes_is_right(task):
    small, large, none = load_problems(task)
    assert small.judge is not None
    answers = [(small, "8"), (small, "12"), (large, "12"), (large, "half"), (none, "8")]
    assert [verdict.correct for verdict in small.judge(answers)] == [True, False, True, False, None]
    assert (small.gold, small.groups, none.groups) == ("4", {"level": "1"}, {})


def test_a_conversation_is_asked_unchanged_and_the_reward_sees_it(tmp_path):
    turns = [
        {"role": "user", "content": "An even number?"},
        {"role": "assistant", "content": "8"},
        {"role": "user", "content": "Another number?"},
    ]
    rows = [{"asked": turns, "answer": "4", "turns": 3, "level": 2}]
    (tmp_path / "turns.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "reward.py").write_text(
        "def same(prompts, completions, turns, **columns):\n"
        "    return [float(len(p) == n) for p, n in zip(prompts, turns)]\n"
    )
    task = with_reward(find_task(str(tmp_path / "turns.jsonl")), f"{tmp_path}/reward.py:same")
    [problem] = load_problems(task, columns=ColumnOptions(prompt_column="asked"))
    assert [message["content"] for message in problem.conversation.messages] == [
        "An even number?",
        "8",
        "Another number?",
    ]
    assert (problem.prompt, problem.groups) == ("Another number?", {"level": "2"})
    assert problem.judge([(problem, "6")])[0].correct


def test_only_the_first_problems_are_asked(task):
    assert [problem.index for problem in load_problems(task, limit=2)] == [0, 1]


def test_the_reward_is_recorded_and_nothing_is_put_to_a_vote(task):
    assert task.recorded["reward"].endswith("reward.py:even") and not task.votes


def test_a_task_with_a_judge_of_its_own_is_refused(tmp_path):
    with pytest.raises(UserError, match="has its own judge"):
        with_reward(find_task("lcb"), "accuracy")


def test_an_unknown_reward_is_refused(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'accuracy'"):
        with_reward(find_task("gsm8k"), "acuracy")


def test_evaluate_judges_by_the_reward(tiny_model, sums, tmp_path):
    (tmp_path / "short.py").write_text("def short(completions, **columns):\n    return [1.0 for _ in completions]\n")
    words = ["--model", str(tiny_model), "--tasks", str(sums), "--output", str(tmp_path / "out"), "--num-samples", "2"]
    evaluate.main([*words, "--max-new-tokens", "4", "--reward", f"{tmp_path}/short.py:short", "--limit", "3"])
    results = json.loads((tmp_path / "out" / "sums" / "results.json").read_text())
    assert (results["pass@1"], results["protocol"]["reward"]) == (1.0, f"{tmp_path}/short.py:short")
