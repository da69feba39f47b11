"""Splits a command line into options with their words; what the words mean is decided later."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from open_r1.errors import UserError

Arity = Literal["none", "one", "many"]
_OPTION = re.compile(r"--([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)


def split_command_line(
    argv: Sequence[str], arities: Mapping[str, Arity], unsettable: Collection[str]
) -> tuple[dict[str, list[list[str] | None]], list[str]]:
    """The words of each option in `arities`, an entry for each time it is given (None: `--no_OPTION`, for those that
    are `unsettable`), and the words that belong to none. Names may have dashes or underscores. Raises `UserError`."""
    given: dict[str, list[list[str] | None]] = {}
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            rest += words
            break
        match = _OPTION.fullmatch(word)
        name = match[1].replace("-", "_") if match else ""
        if name not in arities:
            if match and match[2] is None and name.removeprefix("no_") in unsettable and name.startswith("no_"):
                given.setdefault(name.removeprefix("no_"), []).append(None)
            else:
                rest.append(word)
            continue
        assert match is not None
        values = [] if match[2] is None else [match[2]]
        most = {"none": 0, "one": 1, "many": len(words)}[arities[name]]
        while match[2] is None and len(values) < most and words and not _is_option(words[0]):
            values.append(words.pop(0))
        if arities[name] == "one" and not values:
            raise UserError(f"command line: --{name} needs a value.")
        given.setdefault(name, []).append(values)
    return given, rest


def _is_option(word: str) -> bool:
    return word in ("-h", "--") or _OPTION.fullmatch(word) is not None
