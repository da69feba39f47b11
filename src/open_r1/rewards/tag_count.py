"""A gradual form of the format reward: 0.25 for each tag of the R1 template that occurs once and in order."""

from typing import Any

from open_r1.rewards.text import judged_texts

_TAGS = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")


def tag_count_reward(completions: list, prompts: list | None = None, **kwargs: Any) -> list[float]:
    """0 to 1 in steps of 0.25: the largest number of tags that occur exactly once and in the template's order.

    A `<think>` that the prompt opened counts as part of the completion.
    """
    texts = judged_texts(completions, prompts, kwargs.get("prefills"))
    return [0.25 * _in_order([text.find(tag) for tag in _TAGS if text.count(tag) == 1]) for text in texts]


def _in_order(positions: list[int]) -> int:
    """Length of the longest increasing subsequence."""
    longest: list[int] = []
    for index, position in enumerate(positions):
        before = [longest[j] for j in range(index) if positions[j] < position]
        longest.append(1 + max(before, default=0))
    return max(longest, default=0)
