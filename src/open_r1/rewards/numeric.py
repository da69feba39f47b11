r"""Evaluates simple LaTeX in floating point, to show quickly that two answers differ.

Variables get fixed values, the same on both sides: expressions that are equal for every value are equal there.
What is not understood (relations, anything ambiguous like `1/2x` or `\sin 2x`) is left to algebra.
"""

import cmath
import re
import zlib
from functools import lru_cache

TOLERANCE = 2e-5
MAX_LENGTH = 300
_TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|\\[A-Za-z]+|[A-Za-z](?:_(?:\w|\{\w+\}))?|[-+*/^(){}\[\]]")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_GREEK = {"alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "omega", "phi", "rho", "sigma", "tau"}
_CONSTANTS: dict[str, complex] = {"\\pi": 3.141592653589793, "e": 2.718281828459045, "i": 1j}

_FUNCTIONS = {"\\sin": cmath.sin, "\\cos": cmath.cos, "\\tan": cmath.tan, "\\ln": cmath.log}
_INVERSES = {"\\csc": cmath.sin, "\\sec": cmath.cos, "\\cot": cmath.tan}


class _Unclear(Exception):
    """Not simple LaTeX."""


def differ(answer: str, gold: str) -> bool:
    """Do two canonical strings surely stand for different values? False if equal, or if that is not clear."""
    one, other = evaluate(answer), evaluate(gold)
    if one is None or other is None:
        return False
    return abs(one - other) > TOLERANCE * max(abs(one), abs(other))


def is_constant(text: str) -> bool:
    """Is canonical `text` free of variables?"""
    return not re.search(
        r"[A-Za-z]",
        re.sub(
            r"\\(?:frac|sqrt|cdot|times|pi|sin|cos|tan|csc|sec|cot|ln)(?![A-Za-z])|(?<![A-Za-z])[ei](?![A-Za-z])",
            "",
            text,
        ),
    )


def same_constant(answer: str, gold: str) -> bool:
    """Do two canonical strings without variables have the same value, to twelve digits?"""
    one, other = evaluate(answer), evaluate(gold)
    if one is None or other is None or not (is_constant(answer) and is_constant(gold)):
        return False
    return abs(one - other) <= 1e-12 * max(abs(one), abs(other))


@lru_cache(maxsize=65_536)
def evaluate(text: str) -> complex | None:
    """Value of a canonical string, None if it is not simple."""
    if len(text) > MAX_LENGTH or re.search(r"(?<![\\A-Za-z])[A-Za-z]{3,}|(?<![\\A-Za-z])ln|\d \d", text):
        return None
    text = _THOUSANDS.sub(lambda m: m.group().replace(",", ""), text)
    tokens = _TOKEN.findall(text)
    if sum(map(len, tokens)) != len(text):
        return None
    try:
        parser = _Parser(tokens)
        value = parser.sum()
        return value if parser.peek() is None and abs(value) < 1e100 else None
    except (_Unclear, ArithmeticError, ValueError, RecursionError):
        return None


class _Parser:
    """Recursive descent over tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.position = tokens, 0

    def peek(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if token is None or (expected is not None and token != expected):
            raise _Unclear
        self.position += 1
        return token

    def sum(self) -> complex:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self) -> complex:
        value, divided = self.signed(), False
        while (token := self.peek()) is not None and token not in "+-)}]":
            if token in ("*", "\\cdot", "\\times"):
                self.take()
                value *= self.signed()
            elif token == "/":
                self.take()
                value /= self.signed()
                divided = True
            elif divided or token[0].isdigit() or (token == "\\frac" and self.tokens[self.position - 1].isdigit()):
                raise _Unclear  # 1/2x, a mixed number, two numbers side by side
            else:
                value *= self.power()
        return value

    def signed(self) -> complex:
        if self.peek() in ("+", "-"):
            return -self.signed() if self.take() == "-" else self.signed()
        return self.power()

    def power(self) -> complex:
        base = self.atom()
        if self.peek() != "^":
            return base
        self.take()
        token = self.peek()
        if token is None or (token != "{" and len(token) > 1 and not token.startswith("\\")):
            raise _Unclear
        exponent = self.atom()
        if self.peek() == "^" or abs(exponent) > 1000:
            raise _Unclear
        return base**exponent

    def atom(self) -> complex:
        token = self.take()
        if token in ("(", "{"):
            value = self.sum()
            self.take(")" if token == "(" else "}")
            return value
        if token == "\\frac":
            return self.group() / self.group()
        if token == "\\sqrt":
            degree: complex = 2
            if self.peek() == "[":
                self.take()
                degree = self.sum()
                self.take("]")
            return self.group() ** (1 / degree)
        if token in _FUNCTIONS or token in _INVERSES:
            if self.peek() not in ("(", "{"):
                raise _Unclear  # how far the argument goes
            argument = self.atom()
            if self.peek() == "^":
                raise _Unclear  # of the argument, or of the value
            return _FUNCTIONS[token](argument) if token in _FUNCTIONS else 1 / _INVERSES[token](argument)
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if token[0].isalpha() or token[1:] in _GREEK:
            return 1.1 + zlib.crc32(token.lower().encode()) % 9973 / 9973
        return float(token)

    def group(self) -> complex:
        self.take("{")
        value = self.sum()
        self.take("}")
        return value
