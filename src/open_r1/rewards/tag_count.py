"""A quarter for each tag of the R1 template that occurs exactly once: a slope towards the format reward."""

from typing import Any

from open_r1.rewards.text import judged_texts

_TAGS = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")


def tag_count_reward(completions: list, prompts: list | None = None, **kwargs: Any) -> list[float]:
    """0 to 1 in steps of 0.25. A `<think>` that the prompt opened counts as part of the completion."""
    texts = judged_texts(completions, prompts, kwargs.get("prefills"))
    return [sum(0.25 for tag in _TAGS if text.count(tag) == 1) for text in texts]
