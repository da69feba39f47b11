"""Compares a program's output with the expected one."""

import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

Comparison = Literal["lines", "numbers", "json"]


def same_lines(output: str, expected: str) -> bool:
    """Whether all lines are equal, except for white space at the ends of lines and of the text."""
    return [line.strip() for line in output.strip().splitlines()] == [
        line.strip() for line in expected.strip().splitlines()
    ]


def same_numbers(output: str, expected: str) -> bool:
    """LiveCodeBench's comparison of printed output: the numbers of lines are equal, and each line is equal as text or
    number by number."""
    got, wanted = ([line.strip() for line in text.strip().split("\n")] for text in (output, expected))
    return len(got) == len(wanted) and all(map(_same_line, got, wanted))


def _same_line(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return _numbers(one) == _numbers(other)
    except InvalidOperation:
        return False


def _numbers(line: str) -> list[Any]:
    return [Decimal(token) for token in line.split()]


def same_json(output: str, expected: str) -> bool:
    """Whether both are equal as JSON."""
    try:
        return bool(json.loads(output) == json.loads(expected))
    except (ValueError, RecursionError):
        return False


COMPARISONS: dict[Comparison, Callable[[str, str], bool]] = {
    "lines": same_lines,
    "numbers": same_numbers,
    "json": same_json,
}
