import math

import pytest
import torch

from customresnet import OneCycle

LOW, HIGH = 1e-4, 3e-3


def closed_form(step: int, steps: int, peak: int, first: float, top: float, last: float, anneal: str) -> float:
    """The value at a step, written out independently of torch."""
    start, end, share = (first, top, step / peak) if step <= peak else (top, last, (step - peak) / (steps - 1 - peak))
    if anneal == "cos":
        share = (1 - math.cos(math.pi * share)) / 2
    return start + (end - start) * share


@pytest.mark.parametrize("anneal", ["linear", "cos"])
@pytest.mark.parametrize(
    ("steps", "per_epoch", "peak_epoch", "peak"),
    [
        (3, 1, None, 1),
        (3, 3, 1, 1),  # a peak at the very last step would leave no way down
        (20, 5, None, 3),
        (20, 5, 2.5, 11),
        (2352, 98, None, 489),
        (2352, 98, 5, 489),
        (2352, 98, 24, 2350),
    ],
)
def test_every_step_equals_the_closed_form(steps, per_epoch, peak_epoch, peak, anneal):
    policy = OneCycle(HIGH, LOW, peak_epoch, anneal)
    rates, momenta = policy.curve(steps, per_epoch)
    assert policy.peak_step(steps, per_epoch) == peak
    assert len(rates) == steps
    for step in range(steps):
        assert rates[step] == pytest.approx(closed_form(step, steps, peak, LOW, HIGH, LOW, anneal), rel=1e-9)
        assert momenta[step] == pytest.approx(closed_form(step, steps, peak, 0.95, 0.85, 0.95, anneal), rel=1e-9)
    assert max(rates) == pytest.approx(HIGH, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_without_room_for_a_cycle_keeps_lrmin(steps):
    assert OneCycle(HIGH, LOW).curve(steps, 1) == ([LOW] * steps, [0.95] * steps)


def test_momentum_can_be_left_alone():
    assert set(OneCycle(HIGH, LOW, momentum=None).curve(20, 5)[1]) == {0.9}


def test_sgd_cycles_its_own_momentum():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = OneCycle(HIGH, LOW).scheduler(optimizer, 20, 5)
    seen = []
    for _ in range(20):
        seen.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    assert (seen[0], min(seen), seen[-1]) == pytest.approx((0.95, 0.85, 0.95))
