"""Whether the completion is one think block, then one answer block, and nothing else."""

import re
import unicodedata
from typing import Any

from open_r1.rewards.text import judged_texts

_TAG = re.compile(r"</?(?:think|answer)>")
_ORDER = ["<think>", "</think>", "<answer>", "</answer>"]
_BLANK_SYMBOLS = "\u115f\u1160\u2800\u3164\uffa0"  # Unicode calls them letters and symbols, but they are invisible


def parse_format(text: str, *, strict: bool = True) -> tuple[str, str] | None:
    """Splits `text` into (reasoning, answer), or returns None if it is not well formed.

    A well-formed text has each of the four tags exactly once and in order, visible text in both blocks, and no text
    before, between or after them. `strict` also requires the newlines of the R1 template around the tags:
    `<think>\\n...\\n</think>\\n<answer>\\n...\\n</answer>`.
    """
    text = text.rstrip()
    tags = list(_TAG.finditer(text))
    if [tag.group() for tag in tags] != _ORDER:
        return None
    before, reasoning, between, answer, after = (
        text[start:end]
        for start, end in zip(
            [0, *(tag.end() for tag in tags)], [*(tag.start() for tag in tags), len(text)], strict=True
        )
    )
    if before.strip() or between.strip() or after or not (_visible(reasoning) and _visible(answer)):
        return None
    if strict:
        blocks_padded = all(block[0] == "\n" == block[-1] for block in (reasoning, answer))
        if before or between != "\n" or not blocks_padded:
            return None
    return reasoning.strip(), answer.strip()


def _visible(text: str) -> bool:
    """Whether `text` has more than white space, control characters, combining marks and characters without a glyph."""
    return any(unicodedata.category(character)[0] in "LNPS" and character not in _BLANK_SYMBOLS for character in text)


def format_reward(completions: list, prompts: list | None = None, **kwargs: Any) -> list[float]:
    """1.0 for `<think>\\n...\\n</think>\\n<answer>\\n...\\n</answer>` and nothing else, else 0.0.

    A `<think>` that the prompt opened counts as part of the completion.
    """
    texts = judged_texts(completions, prompts, kwargs.get("prefills"))
    return [float(parse_format(text) is not None) for text in texts]


def format_lenient_reward(completions: list, prompts: list | None = None, **kwargs: Any) -> list[float]:
    """As `format_reward`, with any white space around the tags."""
    texts = judged_texts(completions, prompts, kwargs.get("prefills"))
    return [float(parse_format(text, strict=False) is not None) for text in texts]
