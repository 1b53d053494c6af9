"""The one exception that reaches the user as a plain message instead of a traceback."""


class UserError(Exception):
    """A mistake that the user can mend: says what was wrong, the value received and the flag that mends it."""
