"""What is shown to users as a sentence instead of a stack trace."""


class UserError(Exception):
    """Something the user can mend: the message names the field, its value and the remedy.

    Entry points print it as `error: <message>` and exit with status 2.
    """


class Interrupted(Exception):
    """A run that was asked to stop has stopped, and the same command continues it.

    Entry points print the message and exit with status 75 (sysexits' EX_TEMPFAIL: try again).
    """

    EXIT_CODE = 75


def first_line(error: BaseException) -> str:
    """What an error says, in one line without the full stop; the name of its class if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].removesuffix(".")


def one_line(error: BaseException, limit: int = 600) -> str:
    """All that an error says, in one line of at most `limit` characters: lists of names often follow its first line."""
    text = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
    return text if len(text) <= limit else text[: limit - 4] + " ..."
