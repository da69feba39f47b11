"""Reward of sums, largest and sequences: is the final answer the right number, written as a number?

`accuracy` would not do. For it, as in mathematics, 7 + 5 is 12, so a model that copies the question is always right.
"""

import re

from open_r1.rewards.answers import extract_answer
from open_r1.rewards.text import text_of

ONE_NUMBER = re.compile(r"[^\d+*/^-]*(-?\d{1,18})[^\d+*/^-]*")


def number(completions: list, answer: list[str], **_: object) -> list[float]:
    """1 if the final answer, or what follows its last `=`, has no number but `answer` and no operation, else 0."""
    return [float(_number_in(text_of(c)) == int(a)) for c, a in zip(completions, answer, strict=True)]


def _number_in(completion: str) -> int | None:
    found = ONE_NUMBER.fullmatch((extract_answer(completion) or "").rpartition("=")[2].replace("−", "-"))
    return int(found[1]) if found else None
