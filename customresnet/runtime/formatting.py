"""Format durations, percentages and learning rates for people to read."""

import math

UNKNOWN = "-"
"""Stands for a value that is not known."""


def duration(seconds: float) -> str:
    """``2:03`` for minutes and seconds; ``1:02:03`` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(share: float | None, decimals: int = 2) -> str:
    """A share of 1 as ``92.72%``; ``-`` for None and NaN."""
    return UNKNOWN if share is None or math.isnan(share) else f"{share:.{decimals}%}"


def learning_rate(value: float) -> str:
    """Three significant digits: ``0.000631``."""
    return f"{value:.3g}"


def counted(accuracy: float, total: int) -> str:
    """An accuracy with the images behind it: ``9264/10000 (92.64%)``."""
    return f"{round(accuracy * total)}/{total} ({percent(accuracy)})"
