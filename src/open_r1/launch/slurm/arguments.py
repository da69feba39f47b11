"""Parses the arguments of job scripts: by position, as in the readme of huggingface/open-r1, or by name."""

import shlex
from collections.abc import Sequence
from typing import Any

from open_r1.errors import UserError
from open_r1.options import parse_known


def parse_arguments(
    words: Sequence[str], cls: type, script: str, usage: str, description: str, rest: str, *, others: bool = False
) -> tuple[Any, list[str]]:
    """An instance of `cls` from the words after a job script, and with `others` the words that are not its options.
    Raises UserError with the usage in its sentence. `rest` says in the help what follows `--args`, which
    `split_args` has taken off before."""
    usage = f"sbatch [sbatch's options] {script} {usage}"
    try:
        text = f"{usage}\n\n{description}\n  --args ...\n      {rest}\n"
        (options,), unknown = parse_known(words, cls, prog=script, description=text)
        if unknown and not others:
            raise UserError(f"unknown option {unknown[0]!r} (options for the program itself go after --args).")
    except UserError as error:
        raise UserError(f"{error} Usage: {usage}") from None
    return options, unknown


def split_args(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words before `--args`, and what follows it: any number of words, or one that holds them all as a shell would
    read them."""
    for i, word in enumerate(words):
        if word == "--args" or word.startswith("--args="):
            rest = [*([word.removeprefix("--args=")] if "=" in word else []), *words[i + 1 :]]
            return list(words[:i]), shell_words(rest[0]) if len(rest) == 1 else rest
    return list(words), []


def by_name(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """The call by position as a call by name; the last one of `names` may be left out."""
    if not words or words[0].startswith("-"):
        return list(words)
    pairs = zip(names, words, strict=False)
    return [part for name, word in pairs for part in (f"--{name}", word)] + list(words[len(names) :])


def shell_words(text: str) -> list[str]:
    """One string of options as words."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"options {text!r} cannot be parsed ({error}): is a closing quote missing?") from error
