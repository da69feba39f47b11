"""The one error that is shown to users as a sentence instead of a stack trace."""


class UserError(Exception):
    """Something the user can mend: the message names the field, its value and the remedy.

    Entry points print it as `error: <message>` and exit with status 2.
    """
