import pytest

from open_r1.rewards.format import format_lenient_reward, format_reward
from open_r1.rewards.tag_count import tag_count_reward

GOOD = "<think>\nfirst\nsecond\n</think>\n<answer>\n42\n</answer>"


def one(function, text, **kwargs):
    return function(completions=[[{"role": "assistant", "content": text}]], **kwargs)[0]


@pytest.mark.parametrize("text", [GOOD, GOOD + "\n", GOOD.replace("42", "\\boxed{42}\nindeed")])
def test_well_formed(text):
    assert one(format_reward, text) == one(format_lenient_reward, text) == 1.0


@pytest.mark.parametrize(
    "text", ["<think>a</think><answer>b</answer>", " \n" + GOOD, GOOD.replace("</think>\n", "</think>\n\n")]
)
def test_lenient_allows_other_white_space_and_strict_does_not(text):
    assert one(format_reward, text) == 0.0
    assert one(format_lenient_reward, text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        GOOD + "\nThe answer is 42.",
        GOOD + GOOD,
        "Sure! " + GOOD,
        GOOD.replace("</think>\n", "</think>\nso\n"),
        "<think>\na\n</think>\n<think>\nb\n</think>\n<answer>\n42\n</answer>",
        "<think>\na <answer> b </answer>\n</think>\n<answer>\n42\n</answer>",
        "<think>\na <think> b\n</think>\n<answer>\n42\n</answer>",
        "<think>\n\n</think>\n<answer>\n42\n</answer>",
        "<think>\na\n</think>\n<answer>\n\n</answer>",
        "<answer>\n42\n</answer>\n<think>\na\n</think>",
        "<think>\na\n</think>\n" + "<answer>\n42\n</answer>\n" * 50,
        "<think>\na\n</think>\n<answer>\n42",
        "<think>\na\n<answer>\n42\n</answer>",
        "<think>\na\n</answer>\n<answer>\n42\n</think>",
        GOOD.replace("first\nsecond", "\u200b\u200d\ufeff\u2060"),
        GOOD.replace("first\nsecond", "\u3164\u2800\u115f\u1160\uffa0\xad"),
        GOOD.replace("first\nsecond", "\u0301\ufe0f"),
        GOOD.replace("42", "\u200b"),
    ],
)
def test_malformed_and_hacks(text):
    assert one(format_reward, text) == one(format_lenient_reward, text) == 0.0


def test_think_opened_by_the_prompt_counts():
    rest = GOOD.removeprefix("<think>\n")
    assert one(format_reward, rest) == 0.0
    assert one(format_reward, rest, prompts=["q<think>\n"]) == 1.0
    assert one(format_reward, GOOD, prompts=["q<think>\n"]) == 0.0
    assert one(format_reward, rest, prompts=[[{"role": "assistant", "content": "<think>\n"}]]) == 1.0


def test_tag_count_gives_a_quarter_for_each_tag_that_occurs_once():
    assert one(tag_count_reward, GOOD) == 1.0
    assert one(tag_count_reward, "<think>\na\n</think>\n42") == 0.5
    assert one(tag_count_reward, "<think>\na\n<think>\nb") == 0.0
    assert one(tag_count_reward, "a\n</think>\n<answer>\n1\n</answer>", prompts=["<think>\n"]) == 1.0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("\n<answer>\n1\n</answer><think>\na\n</think>\n", 0.5),
        ("\n</answer>\n\n<answer>\n\n</think>\n<think>\n", 0.25),
        ("<think>\na\n</think>\n1\n</answer>\n<answer>\n", 0.75),
    ],
)
def test_tag_count_counts_tags_in_their_place_only(text, score):
    assert one(tag_count_reward, text) == score
