"""Sets of real numbers as unions of intervals: union, intersection, difference, comparison."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from open_r1.rewards import numeric
from open_r1.rewards.notation import plain_text

INFINITY = r"\infty"
MAX_PIECES = 16
_CLOSE = 1e-9

Same = Callable[[str, str], bool | None]


@dataclass(frozen=True)
class Interval:
    """From `low` to `high` (LaTeX), with or without its ends; a point has both ends and `low == high`."""

    low: str
    low_closed: bool
    high: str
    high_closed: bool


@dataclass(frozen=True)
class RealSet:
    """A union of intervals; `variable` is None if none is named."""

    pieces: tuple[Interval, ...]
    variable: str | None = None


REALS = RealSet((Interval(f"-{INFINITY}", False, INFINITY, False),))


def point(value: str) -> Interval:
    """The set of one number."""
    return Interval(value, True, value, True)


def ray(bound: str, closed: bool, *, up: bool) -> Interval:
    """All numbers above or below `bound`."""
    return Interval(bound, closed, INFINITY, False) if up else Interval(f"-{INFINITY}", False, bound, closed)


@lru_cache(maxsize=16_384)
def key(end: str) -> float | None:
    """The value of an end, for sorting; None for one with variables."""
    squeezed = "".join(end.split()).replace("+", "", 1) if end.lstrip().startswith("+") else "".join(end.split())
    if squeezed in (INFINITY, f"-{INFINITY}"):
        return float("-inf") if squeezed[0] == "-" else float("inf")
    text = plain_text(end)
    value = numeric.evaluate(text) if numeric.is_constant(text) else None
    return None if value is None or value[0].imag else value[0].real


def is_ordered(pieces: tuple[Interval, ...]) -> bool:
    """Whether all ends are numbers."""
    return all(key(end) is not None for piece in pieces for end in (piece.low, piece.high))


def merged(pieces: tuple[Interval, ...]) -> tuple[Interval, ...] | None:
    """The set in ascending order, without overlaps: `[1,2]` and `[2,4]` as `[1,4]`; None if ends are not numbers."""
    if not is_ordered(pieces):
        return None
    ordered = sorted((piece for piece in pieces if not _is_empty(piece)), key=lambda p: (_key(p.low), not p.low_closed))
    result: list[Interval] = []
    for piece in ordered:
        if not result or not _touch(result[-1], piece):
            result.append(piece)
            continue
        last = result[-1]
        order = _compare(piece.high, last.high)
        if order > 0 or (order == 0 and piece.high_closed):
            result[-1] = replace(last, high=piece.high, high_closed=piece.high_closed)
    return tuple(result)


def _key(end: str) -> float:
    value = key(end)
    assert value is not None
    return value


def _compare(one: str, other: str) -> int:
    first, second = _key(one), _key(other)
    if first == second or abs(first - second) <= _CLOSE * max(1.0, abs(first), abs(second)) < float("inf"):
        return 0
    return -1 if first < second else 1


def _is_empty(piece: Interval) -> bool:
    order = _compare(piece.low, piece.high)
    return order > 0 or (order == 0 and not (piece.low_closed and piece.high_closed))


def _touch(left: Interval, right: Interval) -> bool:
    order = _compare(right.low, left.high)
    return order < 0 or (order == 0 and (left.high_closed or right.low_closed))


def intersection(left: tuple[Interval, ...], right: tuple[Interval, ...]) -> tuple[Interval, ...] | None:
    """The intersection; None if ends are not numbers."""
    if not (is_ordered(left) and is_ordered(right)):
        return None
    return merged(tuple(_common(one, other) for one in left for other in right))


def _common(one: Interval, other: Interval) -> Interval:
    low = _compare(one.low, other.low)
    high = _compare(one.high, other.high)
    lower, upper = (one if low >= 0 else other), (one if high <= 0 else other)
    return Interval(
        lower.low,
        one.low_closed and other.low_closed if low == 0 else lower.low_closed,
        upper.high,
        one.high_closed and other.high_closed if high == 0 else upper.high_closed,
    )


def without(pieces: tuple[Interval, ...], points: list[str]) -> tuple[Interval, ...] | None:
    """`pieces` with some numbers taken out; None if ends are not numbers (but for `\\mathbb{R}` without one)."""
    if pieces == REALS.pieces and len(points) == 1:
        return (ray(points[0], False, up=False), ray(points[0], False, up=True))
    result: tuple[Interval, ...] | None = pieces
    for value in points:
        if result is None:
            return None
        result = intersection(result, (ray(value, False, up=False), ray(value, False, up=True)))
    return result


def same(answer: RealSet, gold: RealSet, compare: Same) -> bool | None:
    """Whether both are the same set, by `compare` of their ends; None if undecided."""
    if answer.variable and gold.variable and answer.variable != gold.variable:
        return False
    answers, golds = merged(answer.pieces), merged(gold.pieces)
    if answers is not None and golds is not None:
        if len(answers) != len(golds):
            return False
        return _all([_same_piece(one, other, compare) for one, other in zip(answers, golds, strict=True)])
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
    return _all([_same_end(one.low, other.low, compare), _same_end(one.high, other.high, compare)])


def _same_end(one: str, other: str, compare: Same) -> bool | None:
    if INFINITY in one or INFINITY in other:
        return key(one) == key(other) is not None
    return compare(one, other)


def _all(verdicts: list[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True
