r"""Parses sets of real numbers in all their notations.

`(-\infty,1)\cup(2,\infty)`, `x<1 or x>2`, `x \ne 2`, `|x| > 3`, `\{x \mid 2 < x < 3\}`, `\mathbb{R} \setminus \{2\}`,
`a \le -2 or a = 1`.
"""

import re

from open_r1.rewards import realsets
from open_r1.rewards.realsets import INFINITY, MAX_PIECES, Interval, RealSet

_REALS = re.compile(r"\\mathbb\s?\{?R\}?|\\R(?![A-Za-z])|(?:\\text\{)?\s?all real(?:s| numbers)\s?\}?", re.IGNORECASE)
_SIGNS = {r"\leqslant": "<=", r"\leq": "<=", r"\le": "<=", r"\lt": "<", "<": "<", "<=": "<="}
_SIGNS |= {r"\geqslant": ">=", r"\geq": ">=", r"\ge": ">=", r"\gt": ">", ">": ">", ">=": ">="}
_RELATION = re.compile(r"(\\(?:leqslant|geqslant|leq|geq|le|ge|lt|gt)(?![A-Za-z])|<=|>=|<|>)")
_COMPARED = re.compile(_RELATION.pattern + r"|\\neq?(?![A-Za-z])|!=")
_NAME = r"([A-Za-z](?:_\w)?)"
_UNEQUAL = re.compile(rf"{_NAME}\s?(?:\\neq?(?![A-Za-z])|!=|\\not\s?=)(.+)")
_EQUAL = re.compile(rf"{_NAME}\s?=([^=]+)")
_OR = re.compile(r"\\text\s?\{\s?,?\s?or\s?,?\s?\}|\\(?:lor|vee|cup)(?![A-Za-z])|\bor\b", re.IGNORECASE)
_AND = re.compile(r"\\text\s?\{\s?,?\s?and\s?,?\s?\}|\\(?:land|wedge|cap)(?![A-Za-z])|\band\b", re.IGNORECASE)
_WITHOUT = re.compile(r"\s?(?:\\setminus|\\backslash|-)\s?(?=\\\{)")
_MEMBER = re.compile(rf"^\s?{_NAME}\s?\\in(?![a-z])\s?")
_BUILDER = re.compile(
    rf"\\\{{\s?{_NAME}\s?(?:\\in\s?\\mathbb\s?\{{?R\}}?\s?)?(?:\||:|\\mid(?![A-Za-z])|\\vert(?![A-Za-z]))(.+)\\\}}"
)
_POINTS = re.compile(r"\\\{([^{}|:<>]*(?:\{[^{}]*\}[^{}|:<>]*)*)\\\}")
_MODULUS = re.compile(rf"(?:\||\\lvert)\s?{_NAME}\s?(?:\||\\rvert)")
_VARIABLE = re.compile(_NAME)


class _NoSet(Exception):
    """The text is not a set of real numbers, or one that cannot be parsed."""


def read(text: str) -> RealSet | None:
    """The set that cleaned `text` denotes, None if it is not a set."""
    variables: set[str] = set()
    try:
        pieces = _union(text.strip(), variables)
    except _NoSet:
        return None
    if len(variables) > 1 or len(pieces) > MAX_PIECES:
        return None
    return RealSet(pieces, next(iter(variables), None))


def _union(text: str, variables: set[str]) -> tuple[Interval, ...]:
    if member := _MEMBER.match(text):
        variables.add(member[1])
        text = text[member.end() :].strip()
    parts = _split(_OR, text)
    if len(parts) == 1 and "," in text and _COMPARED.search(text) and not _AND.search(text):
        return _listed(text, variables)
    if len(parts) > MAX_PIECES:
        raise _NoSet
    return tuple(piece for part in parts for piece in _conjunction(part, variables))


def _listed(text: str, variables: set[str]) -> tuple[Interval, ...]:
    """Relations between commas: alternatives, unless they only make sense together (`x > 1, x \\ne 2`)."""
    parts = [part.strip() for part in text.split(",")]
    if not all(len(_RELATION.findall(part)) == 1 or _UNEQUAL.fullmatch(part) for part in parts):
        return _conjunction(text, variables)
    sets = [_difference(part, variables) for part in parts]
    if any(map(_UNEQUAL.fullmatch, parts)):
        return _known(_intersected(sets))
    if len(parts) == 2 and realsets.intersection(*sets) != ():
        raise _NoSet  # `x > 1, x < 2`: both at once, most likely
    return tuple(piece for each in sets for piece in each)


def _conjunction(text: str, variables: set[str]) -> tuple[Interval, ...]:
    sets = [_difference(part, variables) for part in _split(_AND, text)]
    return sets[0] if len(sets) == 1 else _known(_intersected(sets))


def _intersected(sets: list[tuple[Interval, ...]]) -> tuple[Interval, ...] | None:
    common: tuple[Interval, ...] | None = sets[0]
    for each in sets[1:]:
        common = None if common is None else realsets.intersection(common, each)
    return common


def _known(pieces: tuple[Interval, ...] | None) -> tuple[Interval, ...]:
    if pieces is None:
        raise _NoSet
    return pieces


def _difference(text: str, variables: set[str]) -> tuple[Interval, ...]:
    whole, *removed = _split(_WITHOUT, text)
    pieces = _single(whole, variables)
    for part in removed:
        points = _POINTS.fullmatch(part)
        if points is None:
            raise _NoSet
        pieces = _known(realsets.without(pieces, [value.strip() for value in points[1].split(",")]))
    return pieces


def _single(text: str, variables: set[str]) -> tuple[Interval, ...]:
    if member := _MEMBER.match(text):
        variables.add(member[1])
        text = text[member.end() :]
    text = text.strip()
    if _REALS.fullmatch(text):
        return realsets.REALS.pieces
    if builder := _BUILDER.fullmatch(text):
        variables.add(builder[1])
        inner: set[str] = set()
        pieces = _union(builder[2].strip(), inner)
        if inner - {builder[1]}:
            raise _NoSet
        variables.discard(builder[1])  # a bound name says nothing outside
        return pieces
    if unequal := _UNEQUAL.fullmatch(text):
        variables.add(unequal[1])
        return _known(realsets.without(realsets.REALS.pieces, [_value(unequal[2])]))
    if points := _POINTS.fullmatch(text):
        return tuple(realsets.point(_value(value)) for value in points[1].split(","))
    if (equal := _EQUAL.fullmatch(text)) and not _RELATION.search(text):
        variables.add(equal[1])
        return (realsets.point(_value(equal[2])),)
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and text[1:-1].count(",") == 1:
        low, _, high = text[1:-1].partition(",")
        return (Interval(_value(low), text[0] == "[", _value(high), text[-1] == "]"),)
    return _chain(text, variables)


def _chain(text: str, variables: set[str]) -> tuple[Interval, ...]:
    """`a < x`, `x < b`, `a < x \\le b` and `|x| < a`."""
    parts = _RELATION.split(text)
    sides, signs = [part.strip() for part in parts[::2]], [_SIGNS[sign] for sign in parts[1::2]]
    if len(sides) not in (2, 3) or "," in text or "=" in "".join(sides) or len({sign[0] for sign in signs}) != 1:
        raise _NoSet
    if signs[0][0] == ">":
        sides, signs = sides[::-1], [sign.replace(">", "<") for sign in signs[::-1]]
    closed = [sign == "<=" for sign in signs]
    if len(sides) == 3:
        variables.add(_name(sides[1]))
        return (Interval(_value(sides[0]), closed[0] and INFINITY not in sides[0], _value(sides[2]), closed[1]),)
    left, right = sides
    if modulus := _MODULUS.fullmatch(left):
        variables.add(modulus[1])
        return (Interval(f"-({_value(right)})", closed[0], right, closed[0]),)
    if modulus := _MODULUS.fullmatch(right):
        variables.add(modulus[1])
        return (realsets.ray(f"-({_value(left)})", closed[0], up=False), realsets.ray(left, closed[0], up=True))
    if _VARIABLE.fullmatch(left):
        variables.add(left)
        return (realsets.ray(_value(right), closed[0], up=False),)
    variables.add(_name(right))
    return (realsets.ray(_value(left), closed[0], up=True),)


def _name(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise _NoSet
    return text


def _value(text: str) -> str:
    text = text.strip()
    balanced = all(text.count(opening) == text.count(closing) for opening, closing in ("()", "[]", "{}"))
    if not text or not balanced or _RELATION.search(text) or "=" in text or "," in text or r"\{" in text:
        raise _NoSet
    return text


def _split(pattern: re.Pattern[str], text: str) -> list[str]:
    """`text` at the matches of `pattern` outside brackets."""
    parts, start, depth, position = [], 0, 0, 0
    for match in pattern.finditer(text):
        between = text[position : match.start()]
        depth += sum(map(between.count, "([{")) - sum(map(between.count, ")]}"))
        position = match.end()
        if depth == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]
