"""The one exception that reaches the user as a plain message instead of a traceback."""


class UserError(Exception):
    """A mistake that the user can fix.

    The message says what is wrong, the value received, and which parameter fixes it. It names parameters in backticks,
    as Python knows them: `` `batch_size` must be at least 1; received 0 ``. The command line shows their flags instead.
    """
