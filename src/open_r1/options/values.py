"""Values as users write them, in YAML or on a command line, turned into what a field's type asks for."""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from open_r1.errors import UserError

_TRUE = ("true", "yes", "t", "y", "1", "on")
_FALSE = ("false", "no", "f", "n", "0", "off")


@dataclass(frozen=True)
class Given:
    """One option as it was written: the value, its raw text if it is a scalar, and where it stands."""

    value: Any
    text: str | None
    where: str


class Mismatch(Exception):
    """What was expected instead, in words."""


class _Loader(yaml.SafeLoader):
    """YAML with `1e-6` read as a number, as in YAML 1.2 (PyYAML reads it as text)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Given]:
    """The options of a recipe, each with its line. Raises `UserError` for what is no mapping of options."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8."
        ) from error
    given: dict[str, Given] = {}
    try:
        root = loader.get_single_node()
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise UserError(f"{path}: expected lines of `option: value`, found something else.")
        for key, node in root.value:
            where = f"{path}, line {key.start_mark.line + 1}"
            text = node.value if isinstance(node, yaml.ScalarNode) else None
            entry = Given(loader.construct_object(node, deep=True), text, where)
            if key.value in given and given[key.value].value != entry.value:
                raise UserError(f"{where}: {key.value} has another value in {given[key.value].where}: keep one.")
            given[key.value] = entry
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: this is not valid YAML ({error.problem}).") from None
    finally:
        loader.dispose()
    return given


def read_words(words: list[str]) -> Given:
    """The words after an option on the command line: none is a bare flag, several are a list."""
    values = [_read_word(word) for word in words]
    if len(words) == 1:
        return Given(values[0], words[0], "command line")
    return Given(values or True, None, "command line")


def _read_word(word: str) -> Any:
    try:
        return yaml.load(word, Loader=_Loader)
    except yaml.YAMLError:
        return word


def convert(value: Any, text: str | None, hint: Any) -> Any:
    """`value` as the type `hint`; `text` is how a scalar was written. Raises `Mismatch`."""
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return _convert_union(value, text, get_args(hint))
    if origin is Literal:
        for choice in get_args(hint):
            same = value == choice and isinstance(value, bool) == isinstance(choice, bool)
            if same or text == choice:
                return choice
        raise Mismatch(describe(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        word = "no" if value is False else text if text is not None else value
        if word in [member.value for member in hint]:
            return word
        raise Mismatch(describe(hint))
    if origin is list or hint is list:
        (item_hint,) = get_args(hint) or (Any,)
        items = value if isinstance(value, list) else [value]
        if not items or (text is None and not isinstance(value, list)):
            return _refuse_unless(value == [], [], hint)
        return [convert(item, text if item is value else None, item_hint) for item in items]
    if origin is dict or hint is dict:
        mapping = _read_word(value) if isinstance(value, str) else value
        return _refuse_unless(isinstance(mapping, dict), mapping, hint)
    return _convert_scalar(value, text, hint)


def _convert_union(value: Any, text: str | None, members: tuple[Any, ...]) -> Any:
    if value is None and NoneType in members:
        return None
    members = tuple(m for m in members if m is not NoneType)
    if str in members and len(members) > 1 and any(isinstance(m, type) and issubclass(m, Enum) for m in members):
        members = tuple(m for m in members if m is not str)
    if str in members and not isinstance(value, list):
        members = tuple(m for m in members if get_origin(m) is not list)
    for member in sorted(members, key=lambda m: m is str):
        try:
            return convert(value, text, member)
        except Mismatch:
            continue
    raise Mismatch(" or ".join(describe(m) for m in members))


def _convert_scalar(value: Any, text: str | None, hint: Any) -> Any:
    if hint is bool:
        if isinstance(value, bool):
            return value
        word = str(value).lower()
        return _refuse_unless(word in _TRUE + _FALSE, word in _TRUE, hint)
    if hint in (int, float) and isinstance(value, str):  # a quoted number
        value = _read_word(value)
    if hint is int:
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        return _refuse_unless(whole, int(value) if whole else None, hint)
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return _refuse_unless(number, float(value) if number else None, hint)
    if hint is str:
        if isinstance(value, str):
            return value
        scalar = value is not None and not isinstance(value, list | dict | bool)
        written = text if text is not None else str(value)
        return _refuse_unless(bool(text) or scalar, written, hint)
    raise Mismatch(describe(hint))


def _refuse_unless(fits: bool, value: Any, hint: Any) -> Any:
    if not fits:
        raise Mismatch(describe(hint))
    return value


def describe(hint: Any) -> str:
    """A type in words: "a whole number", "one of a, b"."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(describe(a) for a in args if a is not NoneType)
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in args)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(str(m.value) for m in hint)
    if origin is list or hint is list:
        return f"a list ({describe(args[0])} each)" if args else "a list"
    if origin is dict or hint is dict:
        return "a mapping, as YAML or JSON"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
