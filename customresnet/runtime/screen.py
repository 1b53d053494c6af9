"""Whether the output is interactive."""

import sys


def interactive() -> bool:
    """Whether a progress bar can be drawn: in a terminal or a notebook, not in a log file."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules
