"""Format durations, percentages, learning rates and names for display."""

import math
from collections.abc import Sequence
from pathlib import Path

UNKNOWN = "-"
"""Shown for an unknown value."""
DIRECTIONS = dict.fromkeys(range(0x202A, 0x202F)) | dict.fromkeys(range(0x2066, 0x206A))
"""Invisible characters that reverse the text after a name."""


def duration(seconds: float) -> str:
    """``2:03`` for minutes and seconds; ``1:02:03`` from one hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(share: float | None, decimals: int = 2) -> str:
    """A fraction as ``92.72%``; ``-`` for None and NaN."""
    return UNKNOWN if share is None or math.isnan(share) else f"{share:.{decimals}%}"


def listed(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and how many there are more: ``a, b, c and 9 more``."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def learning_rate(value: float) -> str:
    """Three significant digits: ``0.000631``."""
    return f"{value:.3g}"


def counted(accuracy: float, total: int) -> str:
    """An accuracy with its counts: ``9264/10000 (92.64%)``."""
    return f"{round(accuracy * total)}/{total} ({percent(accuracy)})"


def one_line(name: str) -> str:
    """A name on one line, without characters that reverse the text after it."""
    return " ".join(name.translate(DIRECTIONS).split())


def few(names: Sequence[str]) -> list[str]:
    """The first names of many, and how many more there are, for a message."""
    return [*names] if len(names) <= 12 else [*names[:10], f"{len(names) - 10} more"]


def data_name(source: str, root: Path | str | None) -> str:
    """A data set: its source, for ``folder`` with the name of the directory or .zip: ``folder cifar10.zip``."""
    return f"{source} {Path(root).name or root}" if source == "folder" and root else source
