"""Takes lists, tuples, sets, intervals and unions apart, and compares them element by element.

Most elements are plain, so that most lists need no algebra; and each element is compared by the rules of single
answers.
"""

import re
from collections.abc import Callable, Iterable
from itertools import product

from open_r1.rewards import fastpath, intervals
from open_r1.rewards.units import ratio, turns

MAX_ITEMS = 64
MAX_SIGNS = 3
_OPPOSITE = {"+": "-", "-": "+"}
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_AND = re.compile(r"\s*(?:,|;)?\s*(?:\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|\b(?:and|or)\b)\s*|\s*;\s*")
_BRACKETS = {"(": ")", "[": "]"}
_MEMBER = re.compile(r"^\s*[A-Za-z](?:_\w)?\s*\\in(?![a-z])\s*")
_NAME = re.compile(r"^\s*(?:[A-Za-z](?:_\w)?|[A-Za-z]\([A-Za-z]\)|\([A-Za-z](?:,\s*[A-Za-z])+\))\s*=\s*(?=[\[(]|\\\{)")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|leq|geq|lt|gt|neq?|leqslant|geqslant)(?![A-Za-z])")

_REAL_SET = re.compile(_RELATION.pattern + r"|\\cup|\\setminus|\\mathbb\{R\}")
_SIGNS = re.compile(r"\\pm(?![A-Za-z])|\\mp(?![A-Za-z])")
_NAMED = re.compile(r"\s*([A-Za-z](?:_\w)?)\s*=([^=]+)")

Leaf = Callable[[str, str], bool | None]


def compare(answer: str, gold: str, leaf: Leaf) -> bool | None:
    """Are two cleaned answers the same? `leaf` compares what cannot be taken apart; None where it does not know."""
    settled = fastpath.settle(answer, gold)
    if settled is not None:
        return settled
    if _REAL_SET.search(gold) or _REAL_SET.search(answer):
        one, other = intervals.read(answer), intervals.read(gold)
        if (one or other) and "{" in (parts(answer)[0], parts(gold)[0]):
            return False  # some numbers, and all between some
        if one and other:
            same = intervals.same(one, other, lambda left, right: compare(left, right, leaf))
            if same is not None or len(one.pieces) == len(other.pieces):
                return same
    if "\\cup" in gold and "\\cup" in answer:
        return _same_set(union_parts(answer), union_parts(gold), leaf)
    gold_open, gold_close, golds = signed(*parts(gold))
    open_, close, answers = signed(*parts(answer))
    if _SIGNS.search("".join(golds + answers)) or max(len(golds), len(answers)) == 1:
        return leaf(answer, gold)
    if len(golds) != len(answers) and (_SIGNS.search(gold) or _SIGNS.search(answer)):
        return False
    for many, open_one, other_open in ((golds, gold_open, open_), (answers, open_, gold_open)):
        values = named_values(many) if not open_one and other_open == "(" else None
        if values and many is golds:
            golds, gold_open, gold_close = values, "(", ")"
        elif values:
            answers, open_, close = values, "(", ")"
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


def same_units(answer: str, gold: str) -> tuple[str, str] | None:
    """Cleaned quantities of both in the answer's unit; None if the units do not go together."""
    (answer, answer_unit), (gold, gold_unit) = fastpath.measured(answer), fastpath.measured(gold)
    times = ratio(answer_unit, gold_unit)
    if times is None:
        turn = turns(answer_unit, gold_unit)
        return (answer, f"{turn}\\cdot({gold})") if turn else None
    if times != 1:
        gold = f"\\frac{{{times.numerator}}}{{{times.denominator}}}\\cdot({gold})"
    return answer, gold


def signed(opening: str, closing: str, items: list[str]) -> tuple[str, str, list[str]]:
    """`parts` with `1 \\pm 2` as `1 + 2` and `1 - 2`; several `\\pm` go each its way, `\\mp` goes against `\\pm`."""
    if opening in _BRACKETS or not any(map(_SIGNS.search, items)):
        return opening, closing, items
    return opening, closing, [form for item in items for form in _both_ways(item)]


def _both_ways(item: str) -> list[str]:
    found = _SIGNS.findall(item)
    if not found or len(found) > MAX_SIGNS:
        return [item]
    pieces = _SIGNS.split(_NAMED.sub(r"\2", item))
    together = "\\mp" in found
    ways = product("+-", repeat=1 if together else len(found))
    forms = []
    for way in ways:
        chosen = way * len(found) if together else way
        signs = [_OPPOSITE[sign] if name == "\\mp" else sign for sign, name in zip(chosen, found, strict=True)]
        form = pieces[0] + "".join(sign + piece for sign, piece in zip(signs, pieces[1:], strict=True))
        forms.append(re.sub(r"^\s*\+", "", form))
    return forms


def named_values(items: list[str]) -> list[str] | None:
    """Values of `x=1`, `y=2` in the order of their names, as a point has them; None if not each has its own name."""
    named = [_NAMED.fullmatch(item) for item in items]
    pairs = sorted((match[1], match[2].strip()) for match in named if match)
    return [value for _, value in pairs] if len({name for name, _ in pairs}) == len(items) > 1 else None


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
