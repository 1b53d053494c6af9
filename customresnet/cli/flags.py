"""Turn the parameter names in an error message into the flags of a command."""

import re
from collections.abc import Iterable


def with_flags(message: str, keys: Iterable[str]) -> str:
    """Replace each `` `parameter` `` in a message by its flag: `` `batch_size` `` by ``--data.batch_size``.

    A name that belongs to no flag keeps its backticks.

    Args:
        message: An error message that names parameters as Python knows them.
        keys: The flags of the command, without dashes: ``data.batch_size``.
    """
    known = list(keys)

    def flag(match: re.Match[str]) -> str:
        name = match[1]
        found = [key for key in known if key == name or key.endswith(f".{name}")]
        return f"--{min(found, key=lambda key: key.count('.'))}" if found else match[0]

    return re.sub(r"`([A-Za-z_][\w.]*)`", flag, message)
