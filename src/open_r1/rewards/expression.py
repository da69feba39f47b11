r"""Parses a mathematical expression into a tree: `2\sqrt{x}+1`, `\binom{n}{2}`, `|x|`, `\log_2 8`, `f(x+1)`.

A tree is a tuple: an operation, then its operands. Ambiguous text (`1/2x`, `\sin 2x(x+1)`) and text that is not an
expression (relations, sums, integrals, words) is not parsed. Parsing takes linear time.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

Node = tuple[Any, ...]
MAX_LENGTH = 2_000
_TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|\\[A-Za-z]+|[A-Za-z]|\\[{}|]|[-+*/^_!|(){}\[\],']")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_THOUSANDS = re.compile(r"(?<![\d,.(\[])\d{1,3}(?:,\d{3})++(?![\d,)\]])")
_GREEK = frozenset(
    re.findall(
        r"\w+",
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi "
        "varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell",
    )
)
_TIMES, _OVER = ("*", "\\cdot", "\\times"), ("/", "\\div")
_TRIGONOMETRIC = frozenset(["sin", "cos", "tan", "csc", "sec", "cot", "sinh", "cosh", "tanh"])
_FUNCTIONS = _TRIGONOMETRIC | frozenset(["arcsin", "arccos", "arctan", "ln", "exp", "lg"])
_OF_MANY = frozenset(["max", "min", "gcd", "lcm"])
_NAMED_FUNCTIONS = frozenset("fgFGPQ")
_CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_ALIASES = {"\\lvert": "|", "\\rvert": "|", "\\vert": "|", "\\dfrac": "\\frac", "\\tfrac": "\\frac"}
_SIGN_ENDS = (*"+-)}],|", "\\rfloor", "\\rceil")


class _Unclear(Exception):
    """Not an expression, or an ambiguous one."""


@lru_cache(maxsize=65_536)
def parse(text: str) -> Node | None:
    r"""The tree of cleaned `text`, None if it is not parsed: `("mul", ("number", 2, None), ("symbol", "x"))` for `2x`.

    A number holds its exact value, and its significant digits if it was written as a decimal.
    """
    if len(text) > MAX_LENGTH:
        return None
    text = _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)
    if _WORD.search(text) or re.search(r"\\\\|(?<![\\A-Za-z])ln", text):
        return None
    tokens = [_ALIASES.get(token, token) for token in _TOKEN.findall(text)]
    if sum(map(len, _TOKEN.findall(text))) != len(text) - sum(map(str.isspace, text)):
        return None
    try:
        reader = _Reader(tokens)
        tree = reader.sum()
        return tree if reader.peek() is None else None
    except (_Unclear, RecursionError, ZeroDivisionError):
        return None


def walk(node: Node) -> Iterator[Node]:
    """`node` and all its subtrees."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack += [operand for operand in current[1:] if isinstance(operand, tuple)]


def symbols(node: Node) -> frozenset[str]:
    """Names of the variables, including named functions."""
    return frozenset(each[1] for each in walk(node) if each[0] in ("symbol", "apply"))


def decimal_digits(node: Node) -> int | None:
    """Significant digits of the least precise decimal, None if no number was written as a decimal."""
    digits = [each[2] for each in walk(node) if each[0] == "number" and each[2] is not None]
    return min(digits, default=None)


class _Reader:
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

    def sum(self) -> Node:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = ("add", value, self.product()) if self.take() == "+" else ("sub", value, self.product())
        return value

    def product(self) -> Node:
        value, divided = self.signed(), False
        while (token := self.peek()) is not None and token not in _SIGN_ENDS:
            if token in _TIMES:
                self.take()
                value = ("mul", value, self.signed())
            elif token in _OVER:
                self.take()
                value, divided = ("div", value, self.signed()), True
            elif divided or (token[0] in "0123456789." and self.tokens[self.position - 1] != "!"):
                raise _Unclear  # 1/2x, or two numbers side by side
            elif token == "\\frac" and self.tokens[self.position - 1][-1].isdigit():
                value = _mixed(value, self.power())
            else:
                value = ("mul", value, self.power())
        return value

    def signed(self) -> Node:
        if self.peek() in ("+", "-"):
            return ("neg", self.signed()) if self.take() == "-" else self.signed()
        return self.power()

    def power(self) -> Node:
        base = self.atom()
        factorials = 0
        while self.peek() == "!":
            self.take()
            factorials += 1
            base = ("factorial", base)
        if factorials > 1:
            raise _Unclear  # a double factorial
        if self.peek() != "^":
            return base
        self.take()
        base = ("pow", base, self.exponent())
        if self.peek() in ("^", "!", "'"):
            raise _Unclear
        return base

    def exponent(self) -> Node:
        if self.peek() in ("+", "-"):
            return ("neg", self.exponent()) if self.take() == "-" else self.exponent()
        return self.atom()

    def atom(self) -> Node:
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            digits = len(token.replace(".", "").lstrip("0")) if "." in token else None
            return ("number", Fraction(token), digits)
        if token in ("(", "{", "["):
            value = self.sum()
            self.take(_CLOSING[token])
            return value
        if token in ("|", "\\lfloor", "\\lceil"):
            value = self.sum()
            self.take(_CLOSING[token])
            return ("call", {"|": "abs", "\\lfloor": "floor", "\\lceil": "ceil"}[token], value)
        if token in ("\\frac", "\\binom"):
            return ("div" if token == "\\frac" else "binomial", self.group(), self.group())
        if token == "\\sqrt":
            return self.root()
        if token in ("\\log", "\\lg", "\\ln", "\\exp") or token[1:] in _FUNCTIONS:
            return self.function(token[1:])
        if token[1:] in _OF_MANY and token[0] == "\\":
            return ("call", token[1:], *self.arguments())
        return self.symbol(token)

    def root(self) -> Node:
        degree: Node = ("number", Fraction(2), None)
        if self.peek() == "[":
            self.take()
            degree = self.sum()
            self.take("]")
        token = self.peek() or ""
        if len(token) > 1 and token[0].isdigit():
            raise _Unclear  # \sqrt10
        return ("root", self.group(), degree)

    def group(self) -> Node:
        if self.peek() == "{":
            return self.atom()
        token = self.peek() or ""
        if (len(token) == 1 and token.isalnum()) or token == "\\pi" or token[1:] in _GREEK or token == "(":
            return self.atom()
        raise _Unclear

    def symbol(self, token: str) -> Node:
        if token[1:] not in _GREEK and not token.isalpha() and token != "\\pi":
            raise _Unclear
        name = token
        while self.peek() in ("'", "_"):
            if self.take() == "'":
                name += "'"
            elif "_" in name:
                raise _Unclear
            else:
                name += "_" + self.subscript()
        if name == "\\pi":
            return ("constant", "pi")
        if name in ("e", "i"):
            return ("constant", name)
        if token in _NAMED_FUNCTIONS and self.peek() == "(":
            return ("apply", name, *self.arguments())
        return ("symbol", name)

    def subscript(self) -> str:
        if self.peek() != "{":
            token = self.take()
            if not (token.isalnum() or token[0] == "\\"):
                raise _Unclear
            return token
        depth, text = 0, ""
        while True:
            token = self.take()
            depth += (token == "{") - (token == "}")
            text += token
            if depth == 0:
                return text[1:-1]

    def arguments(self) -> list[Node]:
        closing = {"(": ")", "{": "}"}.get(self.take())
        if closing is None:
            raise _Unclear
        values = [self.sum()]
        while self.peek() == ",":
            self.take()
            values.append(self.sum())
        self.take(closing)
        return values

    def function(self, name: str) -> Node:
        base: Node | None = None
        if name == "log" and self.peek() == "_":
            self.take()
            base = self.base_of_logarithm()
        power: Node | None = None
        if self.peek() == "^":
            self.take()
            power = self.exponent()
            if power == ("neg", ("number", Fraction(1), None)) and name in ("sin", "cos", "tan"):
                name, power = "arc" + name, None
            elif power[0] != "number" or power[1] < 1:
                raise _Unclear
        value: Node = self.argument()
        value = ("log", value, base) if base is not None else ("call", name, value)
        return ("pow", value, power) if power is not None else value

    def base_of_logarithm(self) -> Node:
        token = self.peek() or ""
        if token.isdigit() and len(token) > 1:  # `\log_28` is `\log_2 8`
            self.tokens[self.position : self.position + 1] = [token[0], token[1:]]
        return self.atom()

    def argument(self) -> Node:
        """In brackets, or without: then all that is multiplied with no sign in between, as in `\\sin 2x`."""
        if self.peek() in ("(", "{", "[", "|"):
            value = self.atom()
            if self.peek() in ("^", "!"):
                raise _Unclear  # of the argument, or of the value
            return value
        sign = self.take() if self.peek() == "-" else ""
        value = self.power()
        numeric = value[0] == "number"
        while (token := self.peek()) is not None and _continues(token):
            mixed = token == "\\frac" and self.tokens[self.position - 1][-1].isdigit()
            value = _mixed(value, self.power()) if mixed else ("mul", value, self.power())
            numeric = False
        if token in ("(", "[", "|", *_OVER) or (numeric and (token in _TIMES or (token or " ")[0].isdigit())):
            raise _Unclear  # how far the argument goes
        return ("neg", value) if sign else value


def _continues(token: str) -> bool:
    return token.isalpha() or token in ("\\pi", "\\frac", "\\sqrt") or token[1:] in _GREEK


def _mixed(whole: Node, fraction: Node) -> Node:
    r"""A number followed by a fraction: a sum in `1\frac{4}{5}`, a product in `2\frac{a}{b}`."""
    if whole[0] == "neg":
        return ("neg", _mixed(whole[1], fraction))
    if fraction[0] != "div" or {fraction[1][0], fraction[2][0]} != {"number"}:
        if fraction[0] != "div":
            raise _Unclear
        return ("mul", whole, fraction)
    if whole[0] != "number" or whole[2] is not None or not 0 < fraction[1][1] < fraction[2][1]:
        raise _Unclear
    return ("add", whole, fraction)
