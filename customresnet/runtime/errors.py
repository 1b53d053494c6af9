"""The exception that the command line shows as a plain message, without a traceback."""


class UserError(Exception):
    """A mistake that the user can fix.

    The message says what is wrong, the value received, and which parameter fixes it, by its Python name in backticks:
    `` `batch_size` must be at least 1; received 0 ``. The command line shows the flag instead, and exits with ``code``.
    """

    code = 2


class UnsavedError(UserError):
    """What a run trained could not be written to its place. The exit code of the command line is ``code``."""

    code = 3
