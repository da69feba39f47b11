"""Errors and warnings that users see as one sentence instead of a stack trace."""

import difflib
import logging
import os
from collections.abc import Iterable

logger = logging.getLogger(__name__)


class UserError(Exception):
    """A mistake that the user can fix: the message names the field, its value and the remedy.

    Commands print it as `error: <message>` and exit with status 2.
    """


class Interrupted(Exception):
    """A run stopped on request. The same command continues it.

    Commands print the message and exit with status 75 (EX_TEMPFAIL of sysexits: try again).
    """

    EXIT_CODE = 75


LOST_PEER = 76
"""Exit status of a training process that lost the connection to another one, which ended first."""


def warn_user(message: str, *arguments: object) -> None:
    """Logs a warning, with `arguments` for its placeholders, in the first process of a job only."""
    if os.environ.get("RANK", "0") == "0":
        logger.warning(message, *arguments)


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "", cutoff: float = 0.6) -> str:
    """A hint to append to a message, with a leading space: "Did you mean 'x'?" for the closest of `known`, or
    `otherwise` if none has at least the similarity `cutoff` (0 to 1, as in `difflib.get_close_matches`)."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    hint = f"Did you mean {near[0]!r}?" if near else otherwise
    return f" {hint}" if hint else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the period; the name of its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].removesuffix(".")


def one_line(error: BaseException, limit: int = 600) -> str:
    """An error's whole message in one line of at most `limit` characters: its first line often ends before a list."""
    text = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
    return text if len(text) <= limit else text[: limit - 4] + " ..."
