"""The reward of Countdown: is the final answer an expression that uses every number once and reaches the target?"""

import ast
import operator
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

from open_r1.rewards import extract_answer
from open_r1.rewards.text import text_of

OPERATIONS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
MAX_LENGTH = 100


def countdown(completions: list, numbers: list[list[int]], target: list[int], **_: object) -> list[float]:
    """1 for a right expression, else 0. `target` is an integer, `numbers` the integers to use, each exactly once.

    The expression is the final answer as `accuracy` finds it, up to an equals sign.
    """
    return [float(solves(text_of(c), ns, t)) for c, ns, t in zip(completions, numbers, target, strict=True)]


def solves(completion: str, numbers: list[int], target: int) -> bool:
    """Whether the completion's final answer is such an expression. Never raises."""
    expression = (extract_answer(completion) or "").partition("=")[0].strip().strip("$")
    for written, plain in (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("×", "*"), ("÷", "/"), ("−", "-")):
        expression = expression.replace(written, plain)
    if len(expression) > MAX_LENGTH:
        return False
    try:
        used: list[int] = []
        value = _value(ast.parse(expression, mode="eval").body, used)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return False
    return value == target and Counter(used) == Counter(numbers)


def _value(node: ast.expr, used: list[int]) -> Fraction:
    """Value of the expression; its numbers are appended to `used`. Raises ValueError for anything but arithmetic."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.left, used), _value(node.right, used))
    raise ValueError(f"{ast.dump(node)} is no arithmetic")
