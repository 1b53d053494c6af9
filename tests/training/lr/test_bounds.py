"""The bounds chosen from a loss curve."""

import pytest

from customresnet.training.lr.bounds import Candidate, LRRangeTest, choose_bounds
from tests.training.lr.test_range_test import LRS, falling_then_diverging


@pytest.mark.parametrize("odd", [0.01, 50.0])
@pytest.mark.parametrize("rule", ["halfway", "edge/2", "steepest", "valley", "minimum/10"])
def test_one_odd_loss_at_the_first_step_does_not_decide(odd: float, rule: Candidate) -> None:
    losses = falling_then_diverging(-3.0)
    test = LRRangeTest(choose=rule)
    usual = choose_bounds(LRS, losses, test)
    losses[0] = odd
    found = choose_bounds(LRS, losses, test)
    assert (found.lr_max, found.lr_min) == (usual.lr_max, usual.lr_min)


@pytest.mark.parametrize("rule", ["halfway", "edge/2", "steepest", "valley", "minimum/10"])
def test_bounds_lie_within_the_tested_range(rule: Candidate) -> None:
    found = choose_bounds(LRS, falling_then_diverging(-4.5), LRRangeTest(choose=rule))  # its minimum is near the start
    assert LRS[0] <= found.lr_min <= found.lr_max
