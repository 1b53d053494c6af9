"""Both learning-rate policies, checked at every step against closed forms that do not use torch."""

import math

import pytest
import torch

from customresnet import OneCycle, Triangular
from customresnet.schedules.schedule import Schedule

LOW, HIGH = 1e-4, 3e-3


def adam() -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])


def one_cycle(step: int, steps: int, peak: int, first: float, top: float, last: float, anneal: str) -> float:
    """The value at a step of the One Cycle policy."""
    rising = step <= peak
    start, end, t = (first, top, step / peak) if rising else (top, last, (step - peak) / (steps - 1 - peak))
    if anneal == "cos":
        t = (1 - math.cos(math.pi * t)) / 2
    return start + (end - start) * t


def triangular(step: int, half: int, bottom: float, top: float, mode: str, gamma: float) -> float:
    """The value at a step of the triangular policy: a triangle wave whose height shrinks by cycle or by step."""
    height = half - abs(half - step % (2 * half))  # 0 at the bottom, half at the top
    scale = {"triangular": 1.0, "triangular2": 0.5 ** (step // (2 * half)), "exp_range": gamma**step}[mode]
    return bottom + (top - bottom) * height / half * scale


@pytest.mark.parametrize("divisor", [1.0, 1e4])
@pytest.mark.parametrize("anneal", ["linear", "cos"])
@pytest.mark.parametrize(
    ("steps", "per_epoch", "peak_epoch", "peak"),
    [
        (3, 1, None, 1),
        (3, 3, 1, 1),  # not at the last step, so that the learning rate can fall again
        (20, 5, None, 3),
        (20, 5, 2.5, 11),
        (2352, 98, None, 489),
        (2352, 98, 5, 489),
        (2352, 98, 24, 2350),
    ],
)
def test_one_cycle_matches_the_closed_form_at_every_step(steps, per_epoch, peak_epoch, peak, anneal, divisor):
    policy = OneCycle(HIGH, LOW, peak_epoch, anneal, final_div_factor=divisor)
    schedule = Schedule.from_policy(policy, adam(), steps, per_epoch)
    assert policy.peak_step(steps, per_epoch) == peak
    assert len(schedule.lr) == len(schedule.momentum) == steps
    for step in range(steps):
        lr = one_cycle(step, steps, peak, LOW, HIGH, LOW / divisor, anneal)
        momentum = one_cycle(step, steps, peak, 0.95, 0.85, 0.95, anneal)
        assert schedule.lr[step] == pytest.approx(lr, rel=1e-9, abs=1e-15)
        assert schedule.momentum[step] == pytest.approx(momentum, rel=1e-9)
    assert max(schedule.lr) == pytest.approx(HIGH, rel=1e-12)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(
    ("steps", "per_epoch", "half_cycle", "half"),
    [(20, 5, 1, 5), (2352, 98, None, 196), (2352, 98, 2.5, 245), (184, 23, None, 15), (5, 5, 0.01, 1)],
)
def test_triangular_matches_the_closed_form_at_every_step(steps, per_epoch, half_cycle, half, mode):
    policy = Triangular(HIGH, LOW, half_cycle, mode, cycle_gamma=0.99)
    schedule = Schedule.from_policy(policy, adam(), steps, per_epoch)
    assert len(schedule.lr) == len(schedule.momentum) == steps
    for step in range(steps):
        assert schedule.lr[step] == pytest.approx(triangular(step, half, LOW, HIGH, mode, 0.99), rel=1e-9)
        assert schedule.momentum[step] == pytest.approx(triangular(step, half, 0.95, 0.85, mode, 0.99), rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_too_short_for_a_cycle_stays_at_lrmin(steps):
    schedule = Schedule.from_policy(OneCycle(HIGH, LOW), adam(), steps, 1)
    assert (schedule.lr, schedule.momentum) == ([LOW] * steps, [0.95] * steps)


@pytest.mark.parametrize("policy", [OneCycle, Triangular])
def test_momentum_none_keeps_the_optimizers_momentum(policy):
    assert set(Schedule.from_policy(policy(HIGH, LOW, momentum=None), adam(), 20, 5).momentum) == {0.9}


@pytest.mark.parametrize("policy", [OneCycle(HIGH, LOW), Triangular(HIGH, LOW, 1)])
def test_sgd_cycles_its_momentum(policy):
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule = Schedule.from_policy(policy, sgd, 21, 5)
    assert schedule.momentum_name == "momentum"
    assert (schedule.momentum[0], min(schedule.momentum), schedule.momentum[-1]) == pytest.approx((0.95, 0.85, 0.95))
