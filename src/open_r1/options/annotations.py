"""Annotations that refine the type of an option: `learning_rate: Annotated[float, Range(at_least=0)] = 1e-6`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from operator import ge, gt, le, lt
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from open_r1.errors import UserError


@dataclass(frozen=True)
class Range:
    """The numbers that an option accepts; None is accepted if the type allows it."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __str__(self) -> str:
        return ", ".join(f"{words} {bound}" for words, bound, _ in self._bounds())

    def broken_by(self, value: float) -> str | None:
        """The bound that `value` violates, in words; None if it is in the range."""
        if not math.isfinite(value):
            return "a finite number"
        return next((f"{words} {bound}" for words, bound, fits in self._bounds() if not fits(value, bound)), None)

    def _bounds(self) -> list[tuple[str, float, Callable[[float, float], bool]]]:
        bounds = [
            ("at least", self.at_least, ge),
            ("above", self.above, gt),
            ("at most", self.at_most, le),
            ("below", self.below, lt),
        ]
        return [(words, bound, fits) for words, bound, fits in bounds if bound is not None]


@dataclass(frozen=True)
class Positional:
    """The option may be given without its name, in the order of the fields. Help shows it as `metavar`."""

    metavar: str


class Alias:
    """Other names of the option."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True)
class Commas:
    """A list that may also be one text, with commas between the items."""


@dataclass(frozen=True)
class Repeated:
    """A list that takes one item per occurrence on the command line: `--column a --column b`."""


Mark = TypeVar("Mark")


def mark_of(hint: Any, kind: type[Mark]) -> Mark | None:
    """The first annotation of type `kind` in a type hint, or None."""
    return next((mark for mark in split_hint(hint)[1] if isinstance(mark, kind)), None)


def split_hint(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type and its annotations."""
    return (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())


def aliases_of(hints: Mapping[str, Any]) -> dict[str, str]:
    """All aliases, each with the name of its option."""
    return {other: name for name, hint in hints.items() if (alias := mark_of(hint, Alias)) for other in alias.names}


def check_range(name: str, value: Any, hint: Any) -> None:
    """Raises `UserError` if `value` is outside the `Range` in its type hint."""
    allowed = mark_of(hint, Range)
    if allowed is None or value is None:
        return
    if not isinstance(value, int | float):
        raise UserError(f"{name} is {value!r}: it must be a number.")
    if bound := allowed.broken_by(value):
        raise UserError(f"{name} is {value}: it must be {bound}.")


def check_fields(options: Any) -> None:
    """Raises `UserError` for the first field that is outside its range or not one of its choices: the parser checks
    this, but Python code can pass anything."""
    hints = get_type_hints(type(options), include_extras=True)
    for f in fields(options):
        value, plain = getattr(options, f.name), split_hint(hints[f.name])[0]
        check_range(f.name, value, hints[f.name])
        if get_origin(plain) is Literal and value not in get_args(plain):
            raise UserError(f"{f.name} is {value!r}: expected one of {', '.join(map(str, get_args(plain)))}.")
