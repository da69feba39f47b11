"""Builds dataclasses of options from keyword arguments in Python code."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from open_r1.errors import UserError, did_you_mean
from open_r1.options.annotations import aliases_of

T = TypeVar("T")


def from_keywords(cls: type[T], values: Mapping[str, Any]) -> T:
    """`cls(**values)`. Raises `UserError` for a keyword that is not a field of `cls`."""
    known = [f.name for f in fields(cls) if f.init]  # type: ignore[arg-type]
    aliases = aliases_of(get_type_hints(cls, include_extras=True))
    if doubled := next((name for name in values if aliases.get(name) in values), None):
        raise UserError(f"{doubled} and {aliases[doubled]} are the same option: remove one.")
    values = {aliases.get(name, name): value for name, value in values.items()}
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known, otherwise=f"There are: {', '.join(known)}.")
            raise UserError(f"unknown option {name!r}.{hint}")
    return cls(**values)
