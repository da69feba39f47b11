r"""Conditions after a value: `for all real x`, `k \in \mathbb{Z}`, `where n is an integer`."""

import re
from dataclasses import dataclass

from open_r1.rewards.names import substituted

MAX_TAIL = 120
_BEGIN = re.compile(
    r"(?:[,;(]\s?|\\quad\s?|\\text\s?\{\s?[,(]?\s?|\s)\s?"
    r"(?:(?:and )?(?:for|where|with)\s(?:all|every|any|each|some integer|integers?|\$|[A-Za-z]\b|\\|\})|\\forall"
    r"|[A-Za-z]\s?\\in\s?\\(?:mathbb|mathbf|Z))"
)
_QUANTIFIER = re.compile(r"\bfor (?:all|every|any|each)\b|\\forall")
_INTEGERS = r"(?:\\mathbb\s?\{?Z\}?|\\mathbf\s?\{Z\}|\\Z\b|Z\b)"
_DECLARED = re.compile(
    rf"([A-Za-z])\s?(?:\\in\s?{_INTEGERS}|is an(?:y)? (?:arbitrary )?integer)|integers? \$?([A-Za-z])\b"
)
_STATEMENT = re.compile(r"=|\band\b|\bor\b|\bno\b|\bnot\b|\bexcept\b")
_TEXT = re.compile(r"\\(?:text|mathrm|textrm)\s?\{([^{}]*)\}")


@dataclass(frozen=True)
class Conditioned:
    """A value without its condition; `integers` names the variables declared as integers."""

    value: str
    integers: tuple[str, ...] = ()
    stripped: bool = False


def split(text: str) -> Conditioned:
    r"""`2k\pi, k \in \mathbb{Z}` as `2k\pi` and the integer `k`. Other conditions are left in place."""
    for begin in _BEGIN.finditer(text):
        value, tail = text[: begin.start()].rstrip(" ,;("), _TEXT.sub(r"\1", _closed(text[begin.start() :]))
        tail = " ".join(tail.split())
        if not value or len(tail) > MAX_TAIL or value.count("{") != value.count("}"):
            continue
        integers = tuple(first or second for first, second in _DECLARED.findall(tail))
        if _STATEMENT.search(tail) or not (_QUANTIFIER.search(tail) or integers):
            continue
        return Conditioned(value, () if _QUANTIFIER.search(tail) else integers, True)
    return Conditioned(text)


def _closed(tail: str) -> str:
    r"""`\text{ for all } x` where the `\text{` was cut off."""
    return tail if tail.count("{") >= tail.count("}") else "{" + tail


def common_names(answer: Conditioned, gold: Conditioned) -> str:
    """The answer's value, with its one integer called as the gold's: `n\\pi` for `k\\pi` where both are declared."""
    if len(answer.integers) == len(gold.integers) == 1 and answer.integers != gold.integers:
        return substituted(answer.value, answer.integers[0], gold.integers[0]) or answer.value
    return answer.value
