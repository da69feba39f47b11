"""Compares two answers part by part: lists, tuples, sets, named values, matrices, sets of real numbers.

Most parts are simple, so most answers need no algebra; each part is compared by the rules of single answers.
"""

import re
from collections.abc import Callable, Iterable

from open_r1.rewards import (
    conditions,
    expression,
    fastpath,
    intervals,
    listing,
    matrices,
    names,
    numeric,
    quantity,
    realsets,
)
from open_r1.rewards.listing import Collection
from open_r1.rewards.notation import TRIGONOMETRY, clean, plain_text
from open_r1.rewards.units import TURNS, parse_unit, ratio, turns

MAX_ITEMS = 64
_RELATION = re.compile(r"[<>]|\\(?:le|ge|leq|geq|lt|gt|neq?|leqslant|geqslant)(?![A-Za-z])")
_REAL_SET = re.compile(_RELATION.pattern + r"|\\cup|\\setminus|\\mathbb ?\{?R")
_LEAD = re.compile(r"^\\text\s?\{\s?(?:only|just|exactly|simply|is)\s?\}\s?", re.IGNORECASE)
_APPROXIMATELY = re.compile(r"\\(?:approx|simeq|sim)(?![A-Za-z]).*+$", re.DOTALL)
_LISTED = re.compile(r",|;|\b(?:and|or)\b")
_MULTIPLE_OF_PI = re.compile(r"\\pi(?![A-Za-z])")

Leaf = Callable[[str, str], bool | None]


def compare(answer: str, gold: str, leaf: Leaf) -> bool | None:
    """Whether two uncleaned answers are the same. `leaf` compares parts that cannot be split; None if undecided."""
    pair = same_units(answer, gold)
    if pair is None:
        return False
    settled = None if pair[1].startswith(TURNS) else fastpath.settle(answer, gold)
    if settled is not None:
        return settled
    answer_said, gold_said = (conditions.split(_value(text)) for text in pair)
    return _compare(conditions.common_names(answer_said, gold_said), gold_said.value, leaf)


def _value(text: str) -> str:
    """Without text that is not part of the value: `\\text{only } x=0`, `\\sqrt 2 \\approx 1.41`."""
    text = _LEAD.sub("", text)
    exact = _APPROXIMATELY.sub("", text).strip()
    return exact if exact and "," not in text[len(exact) :] else text


def same_units(answer: str, gold: str) -> tuple[str, str] | None:
    """Cleaned quantities of both in the answer's unit; None if the units do not match. Items of lists keep their
    own."""
    if _LISTED.search(answer) and len(listing.read(clean(answer)).items) > 1:
        return clean(answer), clean(gold)
    (answer, answer_unit), (gold, gold_unit) = quantity.measured(answer), quantity.measured(gold)
    if answer_unit is None and gold_unit == parse_unit("degree") and _is_multiple_of_pi(answer):
        answer_unit = parse_unit("radian")
    if gold_unit is None and answer_unit == parse_unit("degree") and _is_multiple_of_pi(gold):
        gold_unit = parse_unit("radian")
    times = ratio(answer_unit, gold_unit)
    if times is None:
        turn = turns(answer_unit, gold_unit)
        return (answer, f"{turn}\\cdot({names.split(gold).value})") if turn else None
    if times != 1:
        gold = f"\\frac{{{times.numerator}}}{{{times.denominator}}}\\cdot({gold})"
    return answer, gold


def _is_multiple_of_pi(text: str) -> bool:
    return (
        bool(_MULTIPLE_OF_PI.search(text))
        and not TRIGONOMETRY.search(text)
        and numeric.is_constant(plain_text(names.split(text).value))
    )


def _compare(answer: str, gold: str, leaf: Leaf) -> bool | None:
    settled = fastpath.settle(answer, gold)
    if settled is not None:
        return settled
    if _REAL_SET.search(gold) or _REAL_SET.search(answer):
        one, other = intervals.read(answer), intervals.read(gold)
        if one and other:
            same = realsets.same(one, other, lambda left, right: _compare(left, right, leaf))
            return leaf(answer, gold) if same is None else same
        if (one or other) and "{" in (listing.read(answer).opening, listing.read(gold).opening):
            return False  # some numbers, and all between some
    if (rows := matrices.read(gold)) is not None:
        return _same_matrix(answer, gold, rows, leaf)
    answers, golds = listing.read(answer), listing.read(gold)
    if listing.has_signs(answers) or listing.has_signs(golds):
        return leaf(answer, gold)
    if len(golds.items) == 1 == len(answers.items):
        return _same_single(answer, gold, answers, golds, leaf)
    return _same_collections(answers, golds, leaf)


def _same_matrix(answer: str, gold: str, rows: matrices.Rows, leaf: Leaf) -> bool | None:
    """Compares entry by entry; a column may be given as a tuple."""
    answer_rows = matrices.read(names.split(answer).value)
    if answer_rows is None:
        entries, column = listing.read(answer), matrices.column(rows)
        if column is None or not (entries.is_tuple or entries.names) or len(entries.items) != len(column):
            return leaf(answer, gold) if "\\begin" in answer else False
        answer_rows = [[entry] for entry in listing.as_point(entries)]
    if [len(row) for row in answer_rows] != [len(row) for row in rows]:
        return False
    cells = [pair for pairs in zip(answer_rows, rows, strict=True) for pair in zip(*pairs, strict=True)]
    return _all(_compare(one, other, leaf) for one, other in cells)


def _same_single(answer: str, gold: str, answers: Collection, golds: Collection, leaf: Leaf) -> bool | None:
    """Two values, with or without names or brackets."""
    if answers.opening or golds.opening:
        return _same_bracketed(answer, gold, answers, golds, leaf)
    one, other = names.split(answer), names.split(gold)
    if one.name is None and "=" in answer:
        return _same_equation(answer, gold, other, leaf)
    if one.name is None or other.name is None:
        if other.name is None and "=" in gold:
            return leaf(answer, gold)
        if one.name is None and other.name is None:
            return leaf(answer, gold)
        return _compare(one.value, other.value, leaf)
    if not _same_name(one, other):
        return False if one.parameters and other.parameters else _maybe_equation(answer, gold, leaf)
    value = names.renamed(one, other)
    if value is None:
        return False
    same = _compare(value, other.value, leaf)
    return same if same or one.words else _maybe_equation(answer, gold, leaf)


def _same_name(one: names.Named, other: names.Named) -> bool:
    """`f(x)` is `f(z)`, and `y` may be the name of any function's value."""
    if one.name == other.name or one.words or other.words:
        return (one.words == other.words and one.name == other.name) or one.words != other.words
    return bool(one.parameters) != bool(other.parameters) and "y" in (one.name, other.name)


def _maybe_equation(answer: str, gold: str, leaf: Leaf) -> bool | None:
    """Equations of lines and the like: `x = (y-3)/2` is `y = 2x+3`."""
    variables = [names.split(text).value for text in (answer, gold)]
    if all(numeric.is_constant(plain_text(value)) for value in variables):
        return False
    return leaf(answer, gold)


def _same_equation(answer: str, gold: str, other: names.Named, leaf: Leaf) -> bool | None:
    """An answer with `=` after something that is not a name: a calculation (`3+2=5`), a sum (`m+n=33`), an equation."""
    if "=" in gold and other.name is None:
        return leaf(answer, gold)
    sides = names.sides(answer)
    plain = [plain_text(side) for side in sides]
    if all(map(numeric.is_constant, plain)):
        if len(set(plain)) < len(plain):
            return False  # `4 = 4` says nothing
        true = _all(_compare(side, sides[-1], leaf) for side in sides[:-1])
        return _compare(sides[-1], other.value, leaf) if true else False if true is False else None
    if other.name is not None:
        if numeric.is_constant(plain[0]) and names.split(f"{sides[-1]}=0").name == other.name:
            return _compare(sides[0], other.value, leaf)  # `3 = x`
        return leaf(answer, gold)
    if names.split(f"{sides[-1]}=0").name and numeric.is_constant(plain[0]):
        return _compare(sides[0], gold, leaf)
    if numeric.is_constant(plain[-1]) and (not _combines(plain[0]) or plain[-1] == "0"):
        return False
    return _compare(sides[-1], gold, leaf) if numeric.is_constant(plain[-1]) else leaf(answer, gold)


def _combines(text: str) -> bool:
    """Whether it combines several quantities, as problems ask for: `m+n`, `100a+b`, `xyz`, `AB:BC`?"""
    node = expression.parse(text)
    return node is None or len(expression.symbols(node)) > 1


def _same_bracketed(answer: str, gold: str, answers: Collection, golds: Collection, leaf: Leaf) -> bool | None:
    """A set of one, or a value in parentheses."""
    if "{" in (answers.opening, golds.opening):
        if not ({answers.opening, golds.opening} <= {"{", ""}):
            return False
        if answers.opening != golds.opening and "\\emptyset" in answers.items + golds.items:
            return False  # the set of the empty set is not empty
        return _compare(answers.items[0], golds.items[0], leaf)
    return leaf(answer, gold)


def _same_collections(answers: Collection, golds: Collection, leaf: Leaf) -> bool | None:
    """Compares by name if both have names, by order in tuples, else as a set."""
    if answers.names and golds.names and not (answers.labels ^ golds.labels):
        return _same_by_name(answers, golds, leaf)
    if len(golds.items) == 1 or len(answers.items) == 1:
        return _one_in_many_forms(answers, golds, leaf)
    if golds.names:
        return _same_as_named(answers, golds, leaf)
    if not golds.is_tuple:
        if answers.is_tuple:
            return False
        return _same_items(answers, golds, leaf)
    if answers.opening == "{" or len(golds.items) != len(answers.items):
        return False
    if (
        len(golds.items) == 2
        and answers.opening
        and (answers.opening, answers.closing) != (golds.opening, golds.closing)
    ):
        return False
    return _in_order(listing.as_point(answers), golds.items, leaf)


def _same_by_name(answers: Collection, golds: Collection, leaf: Leaf) -> bool | None:
    assert answers.names and golds.names
    if set(answers.names) != set(golds.names):
        return False
    given = dict(zip(answers.names, answers.items, strict=True))
    return _in_order([given[name] for name in golds.names], golds.items, leaf)


def _same_as_named(answers: Collection, golds: Collection, leaf: Leaf) -> bool | None:
    """Values without names against named ones: in order; numbered solutions (`x_1, x_2`) in any."""
    assert golds.names
    if answers.opening == "{" or names.are_roots(list(golds.names)) or golds.labels:
        return False if answers.is_tuple else _same_items(answers, golds, leaf)
    if len(answers.items) != len(golds.items):
        return False
    return _in_order(answers.items, listing.as_point(golds) if answers.is_tuple else golds.items, leaf)


def _one_in_many_forms(answers: Collection, golds: Collection, leaf: Leaf) -> bool | None:
    """One value against several is right only if they are forms of the same value: `15\\frac{39}{40}` and
    `\\frac{639}{40}`."""
    several = len(set(answers.items)) == len(answers.items) > 1 and not answers.opening and not answers.names
    if len(golds.items) > 1 or not several or _RELATION.search(golds.items[0]):
        return False
    return _in_order(answers.items, golds.items * len(answers.items), leaf)


def _same_items(answers: Collection, golds: Collection, leaf: Leaf) -> bool | None:
    """The same values in any order, each as often; in a set, and among points, once is enough."""
    one, other = list(answers.items), list(golds.items)
    if max(len(one), len(other)) > MAX_ITEMS:
        return None
    points = all(item[:1] == "(" for item in one + other)
    if points or answers.opening == "{":
        one = _distinct(one, leaf)
    if points or golds.opening == "{":
        one, other = _distinct(one, leaf), _distinct(other, leaf)
    return _matched(one, other, leaf) if len(one) == len(other) else False


def _distinct(items: list[str], leaf: Leaf) -> list[str]:
    distinct: list[str] = []
    for item in items:
        if not any(_compare(item, other, leaf) for other in distinct):
            distinct.append(item)
    return distinct


def _matched(answers: list[str], golds: list[str], leaf: Leaf) -> bool | None:
    left = list(answers)
    for gold in golds:
        verdicts: list[bool | None] = []
        for answer in left:
            verdicts.append(compare(answer, gold, leaf))
            if verdicts[-1]:
                break
        if True not in verdicts:
            return None if None in verdicts else False
        left.pop(len(verdicts) - 1)
    return True


def _in_order(answers: Iterable[str], golds: Iterable[str], leaf: Leaf) -> bool | None:
    return _all(compare(one, other, leaf) for one, other in zip(answers, golds, strict=True))


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    seen = []
    for verdict in verdicts:
        if verdict is False:
            return False
        seen.append(verdict)
    return None if None in seen else True
