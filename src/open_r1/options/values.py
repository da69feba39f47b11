"""Converts values from YAML or a command line to the type of a field."""

import re
import reprlib
import sys
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from open_r1.errors import UserError
from open_r1.options.annotations import Commas, mark_of, split_hint

_TRUE = ("true", "yes", "t", "y", "1", "on")
_FALSE = ("false", "no", "f", "n", "0", "off")


@dataclass(frozen=True)
class Given:
    """The value of an option as the user gave it."""

    value: Any
    """The value as YAML parses it."""
    text: str | None
    """The source text of a scalar."""
    where: str
    """Its place, for error messages."""
    typed: bool = False
    """Whether it comes from the command line, where a text option takes `text`, however YAML parses it."""


class Mismatch(Exception):
    """The value does not fit the type. The message says what was expected."""


class _Loader(yaml.SafeLoader):
    """Reads numbers and dates as in YAML 1.2: `1e-6` is a number, `2024-01-05` is text. PyYAML follows YAML 1.1."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Given]:
    """The options of a recipe, each with its line. Raises `UserError` if the file is not a YAML mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        return _read_options(text, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8."
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{path}, line {line}: the character {error.character:#06x} is not allowed in YAML.") from None
    except yaml.MarkedYAMLError as error:
        line_text = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line_text}: this is not valid YAML ({error.problem}).") from None
    except RecursionError:
        raise UserError(f"{path}: brackets are nested too deeply.") from None


def _read_options(text: str, path: Path) -> dict[str, Given]:
    loader = _Loader(text)
    given: dict[str, Given] = {}
    root = loader.get_single_node()
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: expected lines of the form `option: value`.")
    for key, node in root.value:
        where = f"{path}, line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{where}: expected the name of an option, found a list or a mapping.")
        try:
            value = loader.construct_object(node, deep=True)
        except ValueError as error:  # such as a number of 5,000 digits
            raise UserError(f"{where}: the value of {key.value} cannot be read ({error}).") from None
        entry = Given(value, node.value if isinstance(node, yaml.ScalarNode) else None, where)
        if key.value in given and given[key.value].value != entry.value:
            raise UserError(f"{where}: {key.value} has another value in {given[key.value].where}: remove one.")
        given[key.value] = entry
    return given


def read_words(words: list[str]) -> Given:
    """The value in the words after an option on the command line: True without words, a list if there are several."""
    if len(words) == 1:
        return Given(_read_word(words[0]), words[0], "command line", typed=True)
    return Given(words or True, None, "command line", typed=True)


def _read_word(word: str) -> Any:
    try:
        return yaml.load(word, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return word


def convert(given: Given, hint: Any) -> Any:
    """The value converted to the type `hint`. Raises `Mismatch`."""
    if mark_of(hint, Commas):
        given = _split_at_commas(given)
    hint = split_hint(hint)[0]
    value, text = given.value, given.text
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return _convert_union(given, get_args(hint))
    if origin is Literal:
        for choice in get_args(hint):
            same = value == choice and isinstance(value, bool) == isinstance(choice, bool)
            if text == choice or (same and not (given.typed and isinstance(choice, str))):
                return choice
        raise Mismatch(describe(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        word = "no" if value is False else text if text is not None else value
        if word in [member.value for member in hint]:
            return word
        raise Mismatch(describe(hint))
    if origin is tuple:  # of any length
        return tuple(_convert_list(given, list[get_args(hint)[0]]))  # type: ignore[misc]
    if origin is list or hint is list:
        return _convert_list(given, hint)
    if origin is dict or hint is dict:
        mapping = _read_word(value) if isinstance(value, str) else value
        return _refuse_unless(isinstance(mapping, dict), mapping, hint)
    return _convert_scalar(given, hint)


def _convert_union(given: Given, members: tuple[Any, ...]) -> Any:
    value = given.value
    exact = given.typed and given.text is not None and str in members  # on a command line, `null` is text
    if value is None and NoneType in members and not exact:
        return None
    members = tuple(m for m in members if m is not NoneType)
    if str in members and len(members) > 1 and any(isinstance(m, type) and issubclass(m, Enum) for m in members):
        members = tuple(m for m in members if m is not str)
    if str in members and not isinstance(value, list):
        members = tuple(m for m in members if get_origin(m) is not list)
    for member in sorted(members, key=lambda m: m is str):
        try:
            return convert(given, member)
        except Mismatch:
            continue
    raise Mismatch(" or ".join(describe(m) for m in members))


def _split_at_commas(given: Given) -> Given:
    value = given.text if given.text is not None and given.value is not None else given.value
    if isinstance(value, str) and not isinstance(given.value, list):
        value = [value]
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return replace(given, value=[part for item in value for part in item.split(",")], text=None, typed=True)
    return given


def _convert_list(given: Given, hint: Any) -> list[Any]:
    (item_hint,) = get_args(hint) or (Any,)
    value = given.value
    if isinstance(value, list):
        _refuse_unless(bool(value) or not given.typed, value, hint)
        texts = [item if given.typed and isinstance(item, str) else None for item in value]
        items = [replace(given, value=item, text=text) for item, text in zip(value, texts, strict=True)]
        return [convert(item, item_hint) for item in items]
    return [convert(given, item_hint)] if given.text is not None else _refuse_unless(False, value, hint)


def _convert_scalar(given: Given, hint: Any) -> Any:
    value, text = given.value, given.text
    if hint is bool:
        if isinstance(value, bool):
            return value
        word = str(value).lower()
        return _refuse_unless(word in _TRUE + _FALSE, word in _TRUE, hint)
    if hint in (int, float):
        value = _read_word(value) if isinstance(value, str) else value  # a quoted number
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not abs(value) <= sys.float_info.max:
            raise Mismatch("a finite number")
        return hint(_refuse_unless(number and (hint is float or value == int(value)), value, hint))
    if hint is str or hint is Path:
        scalar = value is not None and not isinstance(value, list | dict | bool)
        plain = isinstance(value, str) and not given.typed
        chosen = value if plain else text if text is not None else str(value)
        fits = plain or (text is not None and (given.typed or bool(text))) or scalar
        return hint(_refuse_unless(fits, chosen, hint))
    raise Mismatch(describe(hint))


def _refuse_unless(fits: bool, value: Any, hint: Any) -> Any:
    if not fits:
        raise Mismatch(describe(hint))
    return value


def shown(given: Given) -> str:
    """The value for error messages, shortened if it is long."""
    if given.text is not None:
        return repr(given.text if len(given.text) <= 200 else given.text[:200] + "...")
    return reprlib.repr(given.value)


def describe(hint: Any) -> str:
    """A type in words: "a whole number", "one of a, b"."""
    if mark_of(hint, Commas):
        return f"{describe(get_args(split_hint(hint)[0])[0])}, or several separated by commas"
    hint = split_hint(hint)[0]
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
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
