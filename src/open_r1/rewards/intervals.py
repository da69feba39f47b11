"""Sets of real numbers, however written: `(-\\infty,1)\\cup(2,\\infty)`, `x<1 or x>2`, `x \\ne 2`, `|x| > 3`."""

import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_PIECES = 16
_REALS = r"\mathbb{R}"
_INFINITY = r"\infty"
_SIGNS = {r"\leqslant": "<=", r"\leq": "<=", r"\le": "<=", r"\lt": "<", "<": "<", "<=": "<="}
_SIGNS |= {r"\geqslant": ">=", r"\geq": ">=", r"\ge": ">=", r"\gt": ">", ">": ">", ">=": ">="}
_RELATION = re.compile(r"(\\(?:leqslant|geqslant|leq|geq|le|ge|lt|gt)(?![A-Za-z])|<=|>=|<|>)")
_UNEQUAL = re.compile(r"\s*([A-Za-z])\s*(?:\\neq?(?![A-Za-z])|!=|\\not\s*=)(.+)")
_OR = re.compile(r"\\text\s*\{\s*,?\s*or\s*,?\s*\}|\\(?:lor|vee|cup)(?![A-Za-z])|\bor\b", re.IGNORECASE)
_AND = re.compile(r"\\text\s*\{\s*,?\s*and\s*,?\s*\}|\\(?:land|wedge|cap)(?![A-Za-z])|\band\b", re.IGNORECASE)
_MEMBER = re.compile(r"^\s*([A-Za-z])\s*\\in(?![a-z])\s*")
_WITHOUT = re.compile(rf"{re.escape(_REALS)}\s*(?:\\setminus|\\backslash|-)\s*\\\{{(.+)\\\}}")
_MODULUS = re.compile(r"\s*(?:\||\\lvert)\s*([A-Za-z])\s*(?:\||\\rvert)\s*")
_VARIABLE = re.compile(r"\s*([A-Za-z])\s*")

Same = Callable[[str, str], bool | None]


@dataclass(frozen=True)
class Interval:
    """From `low` to `high` (LaTeX), with or without its ends."""

    low: str
    low_closed: bool
    high: str
    high_closed: bool


@dataclass(frozen=True)
class RealSet:
    """A union of intervals; `variable` is None where none is named."""

    pieces: tuple[Interval, ...]
    variable: str | None


def read(text: str) -> RealSet | None:
    """The set that cleaned `text` stands for, None if it is none."""
    variables: set[str] = set()
    pieces: list[Interval] = []
    member = _MEMBER.match(text)
    if member:
        variables.add(member[1])
        text = text[member.end() :]
    alternatives = _OR.split(text)
    if len(alternatives) == 1 and "," in text and _RELATION.search(text) and not _AND.search(text):
        parts = text.split(",")
        alternatives = parts if all(len(_RELATION.findall(part)) == 1 for part in parts) else alternatives
        if len(alternatives) == 2 and _meets(alternatives):
            return None  # `x > 1, x < 2`: both at once, most likely
    for alternative in alternatives[: MAX_PIECES + 1]:
        piece = _conjunction(alternative, variables)
        if piece is None:
            return None
        pieces += piece
    if len(variables) > 1 or len(pieces) > MAX_PIECES:
        return None
    return RealSet(tuple(pieces), next(iter(variables), None))


def same(answer: RealSet, gold: RealSet, compare: Same) -> bool | None:
    """Are both made of the same intervals, by `compare` of their ends? None if it does not know."""
    if answer.variable and gold.variable and answer.variable != gold.variable:
        return False
    if len(answer.pieces) != len(gold.pieces):
        return None
    left, unsure = list(answer.pieces), False
    for wanted in gold.pieces:
        verdicts = [_same_piece(piece, wanted, compare) for piece in left]
        if True in verdicts:
            left.pop(verdicts.index(True))
        elif None in verdicts:
            unsure = True
        else:
            return False
    return None if unsure else True


def _same_piece(one: Interval, other: Interval, compare: Same) -> bool | None:
    if (one.low_closed, one.high_closed) != (other.low_closed, other.high_closed):
        return False
    ends = [_same_end(one.low, other.low, compare), _same_end(one.high, other.high, compare)]
    return False if False in ends else None if None in ends else True


def _same_end(one: str, other: str, compare: Same) -> bool | None:
    if _INFINITY in one or _INFINITY in other:
        return _squeezed(one) == _squeezed(other)
    return compare(one, other)


def _squeezed(text: str) -> str:
    return re.sub(r"[\s+]", "", text)


def _meets(parts: list[str]) -> bool:
    """Do two rays with numeric ends run towards each other, so that `and` is meant?"""
    rays = [_conjunction(part, set()) for part in parts]
    if any(ray is None or len(ray) != 1 for ray in rays):
        return True
    (one,), (other,) = (ray for ray in rays if ray)
    try:
        up, down = (one, other) if other.low == f"-{_INFINITY}" else (other, one)
        return float(up.low) <= float(down.high)
    except ValueError:
        return True


def _conjunction(text: str, variables: set[str]) -> list[Interval] | None:
    parts = _AND.split(text)
    found = [_single(part, variables) for part in parts]
    if len(found) == 1:
        return found[0]
    if len(found) != 2 or any(each is None or len(each) != 1 for each in found):
        return None
    (one,), (other,) = (each for each in found if each)
    low, high = (one, other) if other.low == f"-{_INFINITY}" else (other, one)
    if low.high != _INFINITY or high.low != f"-{_INFINITY}":
        return None
    try:
        if float(low.low) >= float(high.high):
            return None
    except ValueError:
        return None
    return [Interval(low.low, low.low_closed, high.high, high.high_closed)]


def _single(text: str, variables: set[str]) -> list[Interval] | None:
    text = _MEMBER.sub("", text).strip()
    if text == _REALS or text.lower() in ("all real numbers", r"\text{all real numbers}"):
        return [Interval(f"-{_INFINITY}", False, _INFINITY, False)]
    if unequal := _UNEQUAL.fullmatch(text):
        variables.add(unequal[1])
        return _all_but(unequal[2].strip())
    if without := _WITHOUT.fullmatch(text):
        return _all_but(without[1].strip())
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and text[1:-1].count(",") == 1:
        low, _, high = text[1:-1].partition(",")
        if not _balanced(low) or not low.strip() or not high.strip():
            return None
        return [Interval(low.strip(), text[0] == "[", high.strip(), text[-1] == "]")]
    return _chain(text, variables)


def _all_but(value: str) -> list[Interval] | None:
    if not _balanced(value) or "," in value or _RELATION.search(value):
        return None
    return [Interval(f"-{_INFINITY}", False, value, False), Interval(value, False, _INFINITY, False)]


def _chain(text: str, variables: set[str]) -> list[Interval] | None:
    """`a < x`, `x < b`, `a < x \\le b` and `|x| < a`."""
    parts = _RELATION.split(text)
    sides, signs = [part.strip() for part in parts[::2]], [_SIGNS[sign] for sign in parts[1::2]]
    if len(sides) not in (2, 3) or not all(sides) or not all(map(_balanced, sides)) or "=" in "".join(sides):
        return None
    if "," in "".join(sides):
        return None
    if len({sign[0] for sign in signs}) != 1:
        return None
    if signs[0][0] == ">":
        sides, signs = sides[::-1], [sign.replace(">", "<") for sign in signs[::-1]]
    closed = [sign == "<=" for sign in signs]
    if len(sides) == 3:
        name = _VARIABLE.fullmatch(sides[1])
        if name is None:
            return None
        variables.add(name[1])
        return [Interval(sides[0], closed[0] and _INFINITY not in sides[0], sides[2], closed[1])]
    for side, other in ((0, 1), (1, 0)):
        bound = sides[other]
        if modulus := _MODULUS.fullmatch(sides[side]):
            variables.add(modulus[1])
            if side == 0:
                return [Interval(f"-({bound})", closed[0], bound, closed[0])]
            ends = Interval(f"-{_INFINITY}", False, f"-({bound})", closed[0])
            return [ends, Interval(bound, closed[0], _INFINITY, False)]
    for side in (0, 1):
        if name := _VARIABLE.fullmatch(sides[side]):
            variables.add(name[1])
            if side == 0:
                return [Interval(f"-{_INFINITY}", False, sides[1], closed[0])]
            return [Interval(sides[0], closed[0], _INFINITY, False)]
    return None


def _balanced(text: str) -> bool:
    return all(text.count(opening) == text.count(closing) for opening, closing in ("()", "[]", "{}"))
