"""Splits a command line into options and their words. The words are interpreted later."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from open_r1.errors import UserError

Arity = Literal["none", "one", "many"]
Words = list[str] | None
"""The words after an option; None for `--no_OPTION`."""
_OPTION = re.compile(r"--([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)


def split_command_line(
    argv: Sequence[str],
    arities: Mapping[str, Arity],
    *,
    positional: Sequence[str] = (),
    unsettable: Collection[str] = (),
    many: Collection[str] = (),
) -> tuple[dict[str, list[Words]], list[str]]:
    """The words of each option in `arities`, one entry per occurrence, and the words that belong to no option.

    Names may have dashes or underscores. Words without an option go to the options `positional` that do not occur by
    name: one word each, or all remaining words if the option is in `many`. `--no_OPTION` is accepted for the options
    `unsettable`. Raises `UserError` for an option without the word that it needs.
    """
    given: dict[str, list[Words]] = {}
    loose: list[tuple[str, bool]] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            loose += [(word, True) for word in words]
            break
        match = _OPTION.fullmatch(word)
        name = match[1].replace("-", "_") if match else ""
        bare = match is not None and match[2] is None
        if name in arities:
            assert match is not None
            values = [] if bare else [match[2]]
            most = {"none": 0, "one": 1, "many": len(words)}[arities[name]] if bare else 0
            while len(values) < most and words and not is_option(words[0]):
                values.append(words.pop(0))
            if arities[name] == "one" and not values:
                raise UserError(f"command line: {word} needs a value.")
            given.setdefault(name, []).append(values)
        elif bare and name.startswith("no_") and name[3:] in unsettable:
            given.setdefault(name[3:], []).append(None)
        else:
            loose.append((word, match is None))
    for name in positional:
        free = [i for i, (_, is_word) in enumerate(loose) if is_word]
        if name not in given and free:
            taken = free if name in many else free[:1]
            given[name] = [[loose[i][0] for i in taken]]
            loose = [item for i, item in enumerate(loose) if i not in taken]
    return given, [word for word, _ in loose]


def is_option(word: str) -> bool:
    """Whether a word begins an option, known or not, or is `--`, which ends the options."""
    return word in ("-h", "--") or _OPTION.fullmatch(word) is not None
