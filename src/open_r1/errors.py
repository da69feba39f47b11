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
    """A run stopped because it was asked to. The same command continues it.

    Commands print the message and exit with status 75 (EX_TEMPFAIL of sysexits: try again).
    """

    EXIT_CODE = 75


def warn_user(message: str, *arguments: object) -> None:
    """Logs a warning, with `arguments` for its placeholders, in the first process of a job only."""
    if os.environ.get("RANK", "0") == "0":
        logger.warning(message, *arguments)


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "", cutoff: float = 0.6) -> str:
    """ " Did you mean 'x'?" with the closest of `known`, to append to a message; " " and `otherwise` if none is close.

    `cutoff`: the least similarity, 0 to 1 (`difflib.get_close_matches`).
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    hint = f"Did you mean {near[0]!r}?" if near else otherwise
    return f" {hint}" if hint else ""


def first_line(error: BaseException) -> str:
    """What an error says, in one line without the full stop; the name of its class if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].removesuffix(".")


def one_line(error: BaseException, limit: int = 600) -> str:
    """All that an error says, in one line of at most `limit` characters: lists of names often follow its first line."""
    text = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
    return text if len(text) <= limit else text[: limit - 4] + " ..."
