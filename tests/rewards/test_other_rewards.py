import math
from types import SimpleNamespace

import pytest

from open_r1.errors import UserError
from open_r1.rewards import REGISTRY, get_reward_funcs, score
from open_r1.rewards.length import get_cosine_scaled_reward, get_soft_overlong_punishment, len_reward
from open_r1.rewards.reasoning_steps import reasoning_steps_reward
from open_r1.rewards.repetition import get_repetition_penalty_reward


def messages(*texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


def test_every_registered_name_builds_from_bare_arguments_with_open_r1s_function_names():
    functions = get_reward_funcs(SimpleNamespace(reward_funcs=list(REGISTRY)))
    assert {name: f.__name__ for name, f in zip(REGISTRY, functions, strict=True)} == {
        "accuracy": "accuracy_reward",
        "format": "format_reward",
        "format_lenient": "format_lenient_reward",
        "tag_count": "tag_count_reward",
        "reasoning_steps": "reasoning_steps_reward",
        "length": "len_reward",
        "cosine": "cosine_scaled_reward",
        "repetition_penalty": "repetition_penalty_reward",
        "soft_overlong_punishment": "soft_overlong_punishment_reward",
        "code": "code_reward",
        "binary_code": "binary_code_reward",
        "cf_code": "cf_code_reward",
        "ioi_code": "ioi_code_reward",
        "code_format": "code_format_reward",
    }


def test_options_come_from_the_script_arguments():
    args = SimpleNamespace(reward_funcs=["soft_overlong_punishment"], max_completion_len=10, soft_punish_cache=5)
    rows = score(get_reward_funcs(args), prompts=["p"], completions=["x"], completion_ids=[[0] * 8])
    assert rows == [{"soft_overlong_punishment_reward": -0.6}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Step 1: a\nStep 2: b\nStep 3: c", 1.0),
        ("First, a. Next, b.", 2 / 3),
        ("1. a\n2. b\n3. c\n4. d", 1.0),
        ("- a\n* b", 2 / 3),
        ("it is 5", 0.0),
    ],
)
def test_reasoning_steps(text, expected):
    assert reasoning_steps_reward(messages(text)) == [pytest.approx(expected)]


def test_length_reward_of_kimi():
    completions = messages(r"\boxed{4}" + " " * 0, r"\boxed{4}" + "x" * 50, r"\boxed{4}" + "x" * 100, r"\boxed{5}")
    rewards = len_reward(completions, ["4"] * 4)
    assert rewards == [0.5, pytest.approx(0.0), -0.5, 0.0]
    wrong_and_long = len_reward(messages(r"\boxed{4}", r"\boxed{5}" + "x" * 90), ["4", "4"])
    assert wrong_and_long == [0.5, -0.5]
    assert len_reward(messages(r"\boxed{4}", r"\boxed{5}"), ["4", "4"]) == [0.0, 0.0]


def test_length_reward_compares_completions_of_one_prompt_only_and_takes_unreadable_golds_as_right():
    texts = messages(r"\boxed{4}", r"\boxed{4}" + "x" * 10, r"\boxed{4}" + "x" * 500, r"\boxed{4}" + "x" * 600)
    assert len_reward(texts, ["4"] * 4, prompts=["p", "p", "q", "q"]) == [0.5, -0.5, 0.5, -0.5]
    assert len_reward(messages("a", "ab"), [r"\frac{1}{", ""]) == [0.5, -0.5]


def test_cosine_reward_at_its_ends_and_between():
    reward = get_cosine_scaled_reward(-1.0, -0.5, 0.5, 1.0, max_len=100)
    right, wrong = r"\boxed{4}", r"\boxed{5}"
    long = 1000
    values = reward(messages(right, right.ljust(50), right.ljust(100), right.ljust(long)), ["4"] * 4)
    assert values[0] == pytest.approx(0.5 + 0.25 * (1 + math.cos(0.09 * math.pi)))
    assert values[1:] == [pytest.approx(0.75), pytest.approx(0.5), pytest.approx(0.5)]
    values = reward(messages(wrong.ljust(50), wrong.ljust(100), wrong.ljust(long)), ["4"] * 3)
    assert values == [pytest.approx(-0.75), pytest.approx(-0.5), pytest.approx(-0.5)]
    assert reward(messages(right), [""]) == [None]


def test_repetition_penalty():
    reward = get_repetition_penalty_reward(2, -1.0)
    assert reward(messages("a b c d", "", "a", "a a a a", "A a b a A b")) == [
        0.0,
        0.0,
        0.0,
        pytest.approx(-2 / 3),
        pytest.approx(-2 / 5),
    ]
    with pytest.raises(ValueError, match="must be at most 0"):
        get_repetition_penalty_reward(2, 0.5)
    with pytest.raises(UserError, match="repetition_language is 'fr'"):
        get_repetition_penalty_reward(2, -1.0, "fr")


def test_repetition_penalty_in_chinese():
    pytest.importorskip("jieba", reason="jieba is an extra")
    reward = get_repetition_penalty_reward(2, -1.0, "zh")
    plain, repeated = reward(messages("今天我们学习数学。", "学习数学学习数学学习数学学习数学"))
    assert plain == 0.0 and repeated < -0.5


def test_soft_overlong_punishment_of_dapo():
    reward = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    assert reward(completion_ids=[[1] * n for n in (0, 80, 90, 100, 150)]) == [0.0, 0.0, -0.5, -1.0, -1.0]
    with pytest.raises(UserError, match="soft_punish_cache is 200"):
        get_soft_overlong_punishment(100, 200)
