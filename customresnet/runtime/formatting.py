"""Format durations, percentages and learning rates for display."""

import math

UNKNOWN = "-"
"""Shown for an unknown value."""


def duration(seconds: float) -> str:
    """``2:03`` for minutes and seconds; ``1:02:03`` from one hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(share: float | None, decimals: int = 2) -> str:
    """A fraction as ``92.72%``; ``-`` for None and NaN."""
    return UNKNOWN if share is None or math.isnan(share) else f"{share:.{decimals}%}"


def learning_rate(value: float) -> str:
    """Three significant digits: ``0.000631``."""
    return f"{value:.3g}"


def counted(accuracy: float, total: int) -> str:
    """An accuracy with its counts: ``9264/10000 (92.64%)``."""
    return f"{round(accuracy * total)}/{total} ({percent(accuracy)})"
