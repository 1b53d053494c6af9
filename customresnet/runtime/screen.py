"""What kind of screen the output goes to."""

import sys


def interactive() -> bool:
    """Whether a progress bar can be drawn: on a terminal or in a notebook, not in a log file."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules
