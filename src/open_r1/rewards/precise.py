r"""Decides in a worker whether two expressions are equal: exactly for rational numbers, else with many digits.

Constants are compared with enough digits to survive cancellation: `e^{\pi\sqrt{163}}` is not
`262537412640768744`. Expressions with variables are compared at points of many sizes and both signs, as Schwartz and
Zippel do for polynomials; only points where both are real count, if there are such.
"""

import hashlib
from collections.abc import Iterator
from fractions import Fraction

import mpmath
from mpmath import mp, mpc, mpf

from open_r1.rewards import expression, numeric
from open_r1.rewards.expression import Node

DIGITS = 60
MAX_DIGITS = 3_000
MAX_BITS = 4_000_000
POINTS, POINTS_IN_PIECES = 10, 32
MIN_REAL_POINTS = 3
_CONSTANTS = {"pi": lambda: mp.pi, "e": lambda: mp.e, "i": lambda: mpc(0, 1)}
_FUNCTIONS = {
    "sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "csc": mp.csc, "sec": mp.sec, "cot": mp.cot, "sinh": mp.sinh,
    "cosh": mp.cosh, "tanh": mp.tanh, "arcsin": mp.asin, "arccos": mp.acos, "arctan": mp.atan, "ln": mp.log,
    "log": mp.log, "lg": mp.log10, "exp": mp.exp, "abs": mp.fabs,
}  # fmt: skip
_PIECEWISE = frozenset(("abs", "max", "min", "floor", "ceil"))

Point = dict[str, Fraction]


def same(answer: Node, gold: Node) -> bool | None:
    """Whether two expressions are equal for all values of their variables; None if that cannot be computed."""
    names = sorted(expression.symbols(answer) | expression.symbols(gold))
    if not names:
        return _same_constant(answer, gold)
    return _same_at_points(answer, gold, names)


def proportional(answer: tuple[Node, Node], gold: tuple[Node, Node]) -> bool | None:
    """Whether two equations (left and right side) are equal up to a constant factor; None if that cannot be
    computed."""
    one, other = ("sub", *answer), ("sub", *gold)
    names = sorted(expression.symbols(one) | expression.symbols(other))
    ratios = []
    for point in _points(names, POINTS, one, other):
        values = [_at(node, point) for node in (one, other)]
        if None in values or any(value == 0 for value in values):
            continue
        ratios.append(_at(("div", one, other), point))
    if len(ratios) < MIN_REAL_POINTS or None in ratios:
        return None
    return all(_near(ratio, ratios[0]) for ratio in ratios)


def rounds(decimal: Fraction, places: int, constant: Node) -> bool:
    """Whether `constant`, rounded or truncated to the places of `decimal`, equals it."""
    value = _at(constant, {})
    if value is None or mp.im(value) != 0:
        return False
    with mp.workdps(DIGITS):
        scaled = mp.re(value) * mpf(10) ** places
        return int(decimal * 10**places) in (int(mp.nint(scaled)), int(scaled))


def _same_constant(answer: Node, gold: Node) -> bool | None:
    exact = [numeric.rational(node, MAX_BITS) for node in (answer, gold)]
    if exact[0] is not None and exact[1] is not None:
        return exact[0] == exact[1]
    if all(_is_rational(node) for node in (answer, gold)):
        return None  # too large to be computed
    values = _values(answer, gold, {})
    return None if values is None else _equal(*values)


def _same_at_points(answer: Node, gold: Node, names: list[str]) -> bool | None:
    pieces = any(_in_pieces(node) for tree in (answer, gold) for node in expression.walk(tree))
    real: list[bool] = []
    others: list[bool] = []
    for point in _points(names, POINTS_IN_PIECES if pieces else POINTS, answer, gold):
        values = _values(answer, gold, point)
        if values is None:
            continue
        is_real = all(mp.im(value) == 0 for value in values[:2])
        (real if is_real else others).append(_equal(*values))
    if len(real) >= MIN_REAL_POINTS:
        return all(real)
    return True if len(others) >= MIN_REAL_POINTS and all(real + others) else None


def _points(names: list[str], count: int, *nodes: Node) -> Iterator[Point]:
    """Values for the variables: within (0, 1), between 1 and 40, with both signs, and beyond the numbers in `nodes`."""
    numbers = [abs(each[1]) for node in nodes for each in expression.walk(node) if each[0] == "number"]
    largest: Fraction = max(numbers, default=Fraction(0))
    scales = [Fraction(1), Fraction(1), Fraction(4), Fraction(40), max(Fraction(400), 5 * largest)]
    if any(each[0] in ("factorial", "binomial") for node in nodes for each in expression.walk(node)):
        scales = [Fraction(1), Fraction(2), Fraction(4)]
    for number in range(count):
        point = {}
        for name in names:
            digest = hashlib.sha256(f"{name} {number}".encode()).digest()
            part = Fraction(int.from_bytes(digest[:12], "big") | 1, 1 << 96)
            negative = number >= len(scales) and digest[12] % 2
            point[name] = part * scales[number % len(scales)] * (-1 if negative else 1)
        yield point


def _values(one: Node, other: Node, point: Point) -> tuple[mpf, mpf, mpf] | None:
    """Both values, and the largest difference that rounding explains."""
    digits = DIGITS
    for _ in range(2):
        with mp.workdps(digits):
            sizes: list[mpf] = []
            try:
                values = _value(one, point, sizes), _value(other, point, sizes)
            except (numeric.Unknown, ArithmeticError, ValueError, TypeError, mpmath.libmp.ComplexResult):
                return None
            if not all(mp.isfinite(value) for value in values):
                return None
            largest, smallest = max(sizes, default=mpf(1)), min(sizes, default=mpf(1))
            needed = DIGITS + int(mp.log10(largest / smallest)) + 1 + max(0, int(mp.log10(largest)))
            noise = largest * mpf(10) ** (15 - digits)
        if needed > MAX_DIGITS:
            return None
        digits = max(needed, DIGITS)
    return (*values, noise)


def _equal(one: mpf, other: mpf, noise: mpf) -> bool:
    with mp.workdps(MAX_DIGITS):
        return bool(abs(one - other) <= noise)


def _at(node: Node, point: Point) -> mpf | None:
    values = _values(node, ("number", Fraction(0), None), point)
    if values is None:
        return None
    return mpf(0) if _equal(*values) else values[0]


def _near(one: mpf, other: mpf) -> bool:
    return bool(abs(one - other) <= mpf(10) ** (20 - DIGITS) * abs(other))


def _value(node: Node, point: Point, sizes: list[mpf]) -> mpf:
    value = _operation(node, point, sizes)
    if value != 0:
        sizes.append(abs(value))
    return value


def _operation(node: Node, point: Point, sizes: list[mpf]) -> mpf:
    kind = node[0]
    if kind == "number":
        return _of(node[1])
    if kind == "constant":
        return +_CONSTANTS[node[1]]()
    if kind == "symbol":
        return _of(point[node[1]])
    operands = [_value(each, point, sizes) for each in node[1 + (kind in ("call", "apply")) :]]
    if kind in numeric.ARITHMETIC:
        return numeric.ARITHMETIC[kind](*operands)
    if kind == "apply":
        return sum((mp.cos(_of(point[node[1]]) * value) + value**2 for value in operands), _of(point[node[1]]))
    if kind == "call":
        return _call(node[1], operands)
    if kind == "factorial":
        return mp.factorial(operands[0])
    left, right = operands
    if kind == "pow":
        return _power(left, right, node[2])
    if kind == "root":
        return _power(left, 1 / right, ("div", ("number", Fraction(1), None), node[2]))
    if kind == "log":
        return mp.log(left) / mp.log(right)
    return mp.binomial(left, right)


def _power(base: mpf, exponent: mpf, tree: Node) -> mpf:
    """Odd roots of negative numbers are real by one convention only, so such points are skipped."""
    if mp.im(base) == 0 and mp.re(base) < 0:
        fraction = numeric.rational(tree, 256)
        if fraction is not None and fraction.denominator > 1 and fraction.denominator % 2:
            raise numeric.Unknown
        if fraction is not None and fraction.denominator == 1:
            return base ** int(fraction)
    return mp.power(base, exponent)


def _call(name: str, values: list[mpf]) -> mpf:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](values[0])
    if any(mp.im(value) != 0 for value in values):
        raise numeric.Unknown
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if name in ("floor", "ceil"):
        if abs(values[0] - mp.nint(values[0])) < mpf(10) ** (20 - DIGITS):
            raise numeric.Unknown  # rounding would decide
        return mp.floor(values[0]) if name == "floor" else mp.ceil(values[0])
    raise numeric.Unknown


def _of(number: Fraction) -> mpf:
    return mpf(number.numerator) / number.denominator


def _is_rational(node: Node) -> bool:
    return not any(each[0] in ("constant", "root", "log") or _irrational(each) for each in expression.walk(node))


def _irrational(node: Node) -> bool:
    return (node[0] == "call" and node[1] in _FUNCTIONS and node[1] != "abs") or (
        node[0] == "pow" and _fractional(node[2])
    )


def _fractional(exponent: Node) -> bool:
    value = numeric.rational(exponent, 256)
    return value is not None and value.denominator != 1


def _in_pieces(node: Node) -> bool:
    return (
        node[0] == "root"
        or (node[0] == "call" and node[1] in _PIECEWISE)
        or (node[0] == "pow" and _fractional(node[2]))
    )
