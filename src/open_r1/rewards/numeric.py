r"""Values of expressions in the calling process: exact where that is cheap, else in floating point.

Variables get the same fixed values on both sides: expressions that are equal everywhere are equal there. Floating point
can only show that two answers differ; equality is shown by exact arithmetic here, or with many digits in a worker
(`precise`).
"""

import cmath
import math
import operator
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

from open_r1.rewards import expression
from open_r1.rewards.expression import Node

MAX_BITS = 4_096
"""Of exact numbers in the calling process; workers go further."""
MAX_NODES = 400
_CONSTANTS: dict[str, complex] = {"pi": cmath.pi, "e": cmath.e, "i": 1j}
_FUNCTIONS = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh,
    "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan, "ln": cmath.log, "log": cmath.log,
    "lg": cmath.log10, "exp": cmath.exp,
}  # fmt: skip
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "neg": lambda x: 0 - x,  # not -x, which is on the other side of the cut of a root
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
}
_RATIONAL = {*ARITHMETIC, "pow", "factorial", "binomial"}
_INVERSES = {"csc": cmath.sin, "sec": cmath.cos, "cot": cmath.tan}


class Unknown(Exception):
    """No value: undefined, too large, or not computed here."""


@lru_cache(maxsize=65_536)
def exact(text: str) -> Fraction | None:
    r"""The rational number that cleaned `text` denotes: `2^{40}-1`, `\binom{5}{2}`; None for others and large ones."""
    node = expression.parse(text)
    if node is None or sum(1 for _ in expression.walk(node)) > MAX_NODES:
        return None
    return rational(node, MAX_BITS)


def rational(node: Node, max_bits: int) -> Fraction | None:
    """Exact value of a tree without variables and roots, if no number in it has more than `max_bits`."""
    try:
        return _rational(node, max_bits)
    except (Unknown, ZeroDivisionError, RecursionError):
        return None


def _rational(node: Node, max_bits: int) -> Fraction:
    kind = node[0]
    if kind == "number":
        return node[1]
    if kind == "call":
        return _rational_call(node[1], [_rational(each, max_bits) for each in node[2:]])
    if kind == "neg":
        return -_rational(node[1], max_bits)
    if kind not in _RATIONAL:
        raise Unknown
    operands = [_rational(each, max_bits) for each in node[1:]]
    if kind in ("factorial", "binomial"):
        value = Fraction(_count(kind, operands, max_bits))
    elif kind == "pow":
        value = _power(operands[0], operands[1], max_bits)
    else:
        value = ARITHMETIC[kind](*operands)
    if value.numerator.bit_length() + value.denominator.bit_length() > max_bits:
        raise Unknown
    return value


def _rational_call(name: str, values: list[Fraction]) -> Fraction:
    if name == "abs":
        return abs(values[0])
    if name in ("floor", "ceil"):
        return Fraction(math.floor(values[0]) if name == "floor" else math.ceil(values[0]))
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if name in ("gcd", "lcm") and all(value.denominator == 1 for value in values):
        integers = [value.numerator for value in values]
        return Fraction(math.gcd(*integers) if name == "gcd" else math.lcm(*integers))
    raise Unknown


def _count(kind: str, operands: list[Fraction], max_bits: int) -> int:
    if any(value.denominator != 1 or value < 0 for value in operands):
        raise Unknown
    n = operands[0].numerator
    if n * n.bit_length() > 2 * max_bits:
        raise Unknown
    return math.factorial(n) if kind == "factorial" else math.comb(n, operands[1].numerator)


def _power(base: Fraction, exponent: Fraction, max_bits: int) -> Fraction:
    if exponent.denominator != 1:
        raise Unknown
    bits = base.numerator.bit_length() + base.denominator.bit_length()
    if bits > 2 and bits * abs(exponent) > 2 * max_bits:
        raise Unknown
    return base ** (exponent.numerator if bits > 2 else exponent.numerator % 2 + 2 if base else exponent.numerator)


@lru_cache(maxsize=65_536)
def evaluate(text: str) -> tuple[complex, float] | None:
    """Value of cleaned `text`, and the largest intermediate result; None if unknown."""
    node = expression.parse(text)
    if node is None or sum(1 for _ in expression.walk(node)) > MAX_NODES:
        return None
    largest = [0.0]
    try:
        value = _value(node, largest)
    except (Unknown, ArithmeticError, ValueError, RecursionError, TypeError):
        return None
    return (value, largest[0]) if largest[0] < 1e100 else None


def _value(node: Node, largest: list[float]) -> complex:
    value = _operation(node, largest)
    largest[0] = max(largest[0], abs(value))
    return value


def _operation(node: Node, largest: list[float]) -> complex:
    kind = node[0]
    if kind == "number":
        return complex(node[1])
    if kind == "constant":
        return _CONSTANTS[node[1]]
    if kind == "symbol":
        return complex(of_name(node[1]))
    operands = [_value(each, largest) for each in node[1 + (kind in ("call", "apply")) :]]
    if kind == "apply":
        return sum((cmath.cos(of_name(node[1]) * value) + value**2 for value in operands), complex(of_name(node[1])))
    if kind == "call":
        return _call(node[1], operands)
    if kind == "factorial":
        return complex(math.gamma(_real(operands[0]) + 1))
    if kind in ARITHMETIC:
        return ARITHMETIC[kind](*operands)
    left, right = operands
    if kind == "pow":
        if abs(right) > 1000 or (left.real < 0 and not left.imag and right.real % 1):
            raise Unknown
        return left**right
    if kind == "root":
        return left ** (1 / right) if left.imag or left.real >= 0 or right == 2 else _odd_root(left.real, right)
    if kind == "log":
        return cmath.log(left) / cmath.log(right)
    n, k = _real(left), _real(right)  # binomial
    return complex(math.gamma(n + 1) / math.gamma(k + 1) / math.gamma(n - k + 1))


def _call(name: str, values: list[complex]) -> complex:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](values[0])
    if name in _INVERSES:
        return 1 / _INVERSES[name](values[0])
    if name == "abs":
        return complex(abs(values[0]))
    if name in ("max", "min"):
        return complex({"max": max, "min": min}[name](map(_real, values)))
    raise Unknown  # floor and ceil: rounding decides, so floating point must not


def _odd_root(base: float, degree: complex) -> complex:
    if degree.imag or degree.real % 2 != 1:
        raise Unknown
    return complex(-((-base) ** (1 / degree.real)))


def _real(value: complex) -> float:
    if value.imag:
        raise Unknown
    return value.real


def of_name(name: str) -> float:
    """A fixed value between 1.1 and 2.1 for a variable."""
    return 1.1 + zlib.crc32(name.encode()) % 9973 / 9973


def differ(answer: str, gold: str) -> bool:
    """Whether two cleaned strings certainly denote different values; False if equal or unclear."""
    exact_values = exact(answer), exact(gold)
    if exact_values[0] is not None and exact_values[1] is not None:
        return exact_values[0] != exact_values[1]
    one, other = evaluate(answer), evaluate(gold)
    if one is None or other is None:
        return False
    if (one[0].imag or other[0].imag) and (_branches(answer) or _branches(gold)):
        return False
    noise = 1e-12 * max(one[1], other[1])
    return abs(one[0] - other[0]) > 1e-9 * max(abs(one[0]), abs(other[0])) + noise


def _branches(text: str) -> bool:
    """Whether there is a root, logarithm or inverse function of a variable, which is not real everywhere."""
    node = expression.parse(text)
    assert node is not None
    many_valued = ("arcsin", "arccos", "arctan", "ln", "log", "lg")
    return bool(expression.symbols(node)) and any(
        each[0] in ("root", "log", "pow") or (each[0] == "call" and each[1] in many_valued)
        for each in expression.walk(node)
    )


def is_constant(text: str) -> bool:
    """Whether cleaned `text` is an expression without variables."""
    node = expression.parse(text)
    return node is not None and not expression.symbols(node)
