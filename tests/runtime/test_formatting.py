"""Formats and intervals, by example and against arithmetic written out here."""

import math

import pytest

from customresnet.runtime.formatting import counted, duration, learning_rate, percent
from customresnet.runtime.intervals import wilson


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (123, "2:03"), (3599.5, "1:00:00"), (3723, "1:02:03")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_percent():
    assert percent(0.92716) == "92.72%"
    assert percent(0.92716, 1) == "92.7%"
    assert percent(None) == percent(math.nan) == "-"


def test_learning_rate_and_counted():
    assert learning_rate(0.00063096) == "0.000631"
    assert counted(0.9264, 10_000) == "9264/10000 (92.64%)"


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (9272, 10_000), (1, 3)])
def test_wilson_interval_matches_its_formula(successes, trials):
    z = 1.959963984540054
    share, square = successes / trials, z * z / trials
    centre = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / trials + square / (4 * trials)) / (1 + square)
    assert wilson(successes, trials) == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-12)


def test_wilson_interval_without_trials_is_everything():
    assert wilson(0, 0) == (0, 1)
