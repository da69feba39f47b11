"""How job scripts are called: by position, as huggingface/open-r1's readme does, or by name."""

import argparse
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from open_r1.errors import UserError


class Parser(argparse.ArgumentParser):
    """Options of a job script; its errors are sentences that show the usage."""

    def __init__(self, script: str, usage: str, description: str) -> None:
        super().__init__(
            prog=script,
            usage=f"sbatch [sbatch's options] {script} {usage}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. Usage: {self.usage}")

    def option(self, name: str, text: str, kind: Callable[[str], Any] = str, required: bool = False) -> None:
        """`--name X`."""
        metavar = "X" if kind is str else "N"
        self.add_argument(f"--{name}", type=kind, help=text, metavar=metavar, required=required)

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Known options alone."""
        options, strange = self.parse_known_args(list(words))
        if strange:
            self.error(f"unknown option {strange[0]!r} (options for the program itself go behind --args)")
        return options


def split_args(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words before `--args`, and what follows it: any number of words, or one that holds them all as a shell would
    read them."""
    for i, word in enumerate(words):
        if word == "--args" or word.startswith("--args="):
            rest = [*([word.removeprefix("--args=")] if "=" in word else []), *words[i + 1 :]]
            return list(words[:i]), shell_words(rest[0]) if len(rest) == 1 else rest
    return list(words), []


def named(words: Sequence[str], names: Sequence[str]) -> list[str]:
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
        raise UserError(f"options {text!r} cannot be read ({error}): is a quote left open?") from error
