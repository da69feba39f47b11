"""Takes lists, tuples, sets, intervals and unions apart, and compares them element by element.

Most elements are plain, so that most lists need no algebra; and each element is compared by the rules of single
answers.
"""

import re
from collections.abc import Callable, Iterable

from open_r1.rewards import fastpath

MAX_ITEMS = 64
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_AND = re.compile(r"\s*(?:,|;)?\s*(?:\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|\b(?:and|or)\b)\s*|\s*;\s*")
_BRACKETS = {"(": ")", "[": "]"}
_MEMBER = re.compile(r"^\s*[A-Za-z](?:_\w)?\s*\\in(?![a-z])\s*")
_NAME = re.compile(r"^\s*(?:[A-Za-z](?:_\w)?|[A-Za-z]\([A-Za-z]\)|\([A-Za-z](?:,\s*[A-Za-z])+\))\s*=\s*(?=[\[(]|\\\{)")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|leq|geq|lt|gt|neq?|leqslant|geqslant)(?![A-Za-z])")

Leaf = Callable[[str, str], bool | None]


def compare(answer: str, gold: str, leaf: Leaf) -> bool | None:
    """Are two cleaned answers the same? `leaf` compares what cannot be taken apart; None where it does not know."""
    settled = fastpath.settle(answer, gold)
    if settled is not None:
        return settled
    if "\\cup" in gold and "\\cup" in answer:
        return _same_set(union_parts(answer), union_parts(gold), leaf)
    gold_open, gold_close, golds = parts(gold)
    open_, close, answers = parts(answer)
    if "\\pm" in gold + answer or "\\mp" in gold + answer or max(len(golds), len(answers)) == 1:
        return leaf(answer, gold)
    if len(golds) > 1 and len(answers) > 1:
        if gold_open not in _BRACKETS:
            return open_ in ("", "{") and _same_set(answers, golds, leaf)
        if len(golds) != len(answers) or open_ == "{":
            return False
        if len(golds) == 2 and open_ and (open_, close) != (gold_open, gold_close):
            return False
        return _all(compare(one, other, leaf) for one, other in zip(answers, golds, strict=True))
    if len(golds) == 1 and not open_ and not _RELATION.search(gold):
        return _all(compare(one, gold, leaf) for one in answers)
    if fastpath.is_plain(answer) or fastpath.is_plain(gold):
        return False
    return leaf(answer, gold)


def without_thousands(text: str) -> str:
    """`1,234` as `1234`."""
    return _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)


def with_commas(text: str) -> str:
    """`and`, `or` and semicolons as commas."""
    return _AND.sub(",", text)


def parts(answer: str) -> tuple[str, str, list[str]]:
    """`(opening bracket, closing bracket, items)`: `("[", ")", ["1", "2"])` for `[1, 2)`; no brackets for `1, 2`."""
    text = _NAME.sub("", _MEMBER.sub("", answer)).strip()
    opening = closing = ""
    body = text
    if text.startswith("\\{") and text.endswith("\\}"):
        opening, closing, body = "{", "}", text[2:-2]
    elif text[:1] in _BRACKETS and text[-1:] in (")", "]"):
        opening, closing, body = text[0], text[-1], text[1:-1]
    if opening and (items := _split(body)) is not None:
        return opening, closing, items
    items = _split(without_thousands(with_commas(answer)))
    return "", "", items if items is not None else [answer]


def union_parts(answer: str) -> list[str]:
    """The sets that a union is made of."""
    return [part.strip() for part in _MEMBER.sub("", answer).split("\\cup")]


def _split(text: str) -> list[str] | None:
    """Items between commas outside brackets; None if brackets do not match."""
    items, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth < 0:
                return None
        elif character == "," and depth == 0:
            items.append(text[start:position].strip())
            start = position + 1
    items.append(text[start:].strip())
    return items if depth == 0 and all(items) else None


def _same_set(answers: list[str], golds: list[str], leaf: Leaf) -> bool | None:
    left = list(dict.fromkeys(answers))
    missing = list(dict.fromkeys(golds))
    if len(left) != len(missing):
        return False
    if len(missing) > MAX_ITEMS:
        return None
    for gold in missing:
        verdicts = {answer: compare(answer, gold, leaf) for answer in left}
        match = next((answer for answer, same in verdicts.items() if same), None)
        if match is None:
            return None if None in verdicts.values() else False
        left.remove(match)
    return True


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    seen = list(verdicts)
    return False if False in seen else None if None in seen else True
