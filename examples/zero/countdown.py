"""Rewards of Countdown: does the final expression use every number once and reach the target, and how near is it?"""

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

from open_r1.rewards.answers import last_block, last_boxed
from open_r1.rewards.text import text_of

OPERATIONS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
MAX_LENGTH, WINDOW = 100, 2000
EXPRESSION = re.compile(r"(?<![\d.])[\d(][\d() ]*[-+*/][-+*/\d() ]*[\d)]")
"""Digits and parentheses with an operator between them, on one line."""


def countdown(completions: list, numbers: list[list[int]], target: list[int], **_: object) -> list[float]:
    """1 for an expression that reaches `target` and uses each of `numbers` exactly once, else 0."""
    return [float(solves(text_of(c), ns, t)) for c, ns, t in zip(completions, numbers, target, strict=True)]


def numbers_used(completions: list, numbers: list[list[int]], **_: object) -> list[float]:
    """How well the numbers of the expression match the given ones, from 0 to 1 (Jaccard similarity of multisets).

    A base model hits the target too rarely to learn from that alone. This says what to try, not what is right.
    """
    values = []
    for completion, given in zip(completions, numbers, strict=True):
        used = Counter(evaluate(expression_of(text_of(completion)))[1])
        values.append((used & Counter(given)).total() / (used | Counter(given)).total())
    return values


def solves(completion: str, numbers: list[int], target: int) -> bool:
    """Whether the completion's final expression is right. Never raises."""
    value, used = evaluate(expression_of(completion))
    return value == target and Counter(used) == Counter(numbers)


def expression_of(completion: str) -> str:
    """The last box or answer block, else the last text that looks like arithmetic; what follows `=` is left out."""
    text = completion
    for written, plain in (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("×", "*"), ("÷", "/"), ("−", "-")):
        text = text.replace(written, plain)
    marked = last_boxed(text) or last_block(text)
    if marked is None:
        found = EXPRESSION.findall(text[-WINDOW:])
        marked = found[-1] if found else ""
    return marked.partition("=")[0].strip().strip("$")


def evaluate(expression: str) -> tuple[Fraction | None, list[int]]:
    """Value and numbers of an expression; `(None, [])` for anything but arithmetic, and for a division by 0."""
    used: list[int] = []
    try:
        return _value(ast.parse(expression[: MAX_LENGTH + 1], mode="eval").body, used), used
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None, []


def _value(node: ast.expr, used: list[int]) -> Fraction:
    """Value of the expression; its numbers are appended to `used`. Raises ValueError for anything but arithmetic."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.left, used), _value(node.right, used))
    raise ValueError(f"{ast.dump(node)} is no arithmetic")
