"""The LR range test: its bounds on curves with a known answer, and that it leaves the run as it was."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from pytorch_lightning.tuner import Tuner

from customresnet import Augmentation, CIFAR10DataModule, ImageClassifier, LRRangeTest
from customresnet.runtime.errors import UserError
from customresnet.training.lr import range_test
from customresnet.training.lr.bounds import USUAL, _valley, choose_bounds
from customresnet.training.lr.range_result import RepeatedLRRange
from customresnet.training.lr.range_test import run_lr_range_test

LRS = np.logspace(-5, 0, 100)


def falling_then_diverging(center: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A loss of 2.3 that falls by 1.5 around log10 LR = center, and diverges 1.5 decades later."""
    x = np.log10(LRS)
    fall = 2.3 - 1.5 / (1 + np.exp(-6 * (x - center)))
    return fall + np.exp(8 * (x - center - 1.5)) + noise * np.random.default_rng(seed).normal(size=100)


@pytest.mark.parametrize("center", [-3.5, -3.0, -2.5])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_the_steepest_candidate_is_where_the_loss_falls_fastest(center, noise):
    result = choose_bounds(LRS, falling_then_diverging(center, noise), LRRangeTest(choose="steepest"))
    assert abs(math.log10(result.lr_max) - center) < 0.2
    assert result.candidates["steepest"] == result.lr_max
    bottom = LRS[np.argmin(falling_then_diverging(center))]
    assert math.log10(result.candidates["minimum/10"] * 10 / bottom) == pytest.approx(0, abs=0.4)
    assert result.lr_max / 1000 <= result.lr_min <= result.lr_max / 10


def test_lrmin_is_where_the_loss_has_fallen_by_a_twentieth():
    """The loss falls slowly over three decades, and fast at their end, which is LRMAX."""
    x = np.log10(LRS)
    losses = np.interp(x, [-5, -4.5, -2, -1.9, -1, 0], [2.3, 2.3, 1.8, 1.3, 1.3, 9])
    result = choose_bounds(LRS, losses, LRRangeTest(choose="steepest"))
    assert math.log10(result.lr_max) == pytest.approx(-1.95, abs=0.1)
    assert math.log10(result.lr_min) == pytest.approx(-4.25, abs=0.15)


def test_lrmin_is_limited_to_a_thousandth_and_a_tenth_of_lrmax():
    early = np.interp(np.log10(LRS), [-5, -4.8, -1.2, -1.0, -0.5, 0], [2.3, 2.0, 1.9, 0.9, 0.9, 9])
    assert choose_bounds(LRS, early, LRRangeTest(choose="steepest")).lr_min == pytest.approx(
        LRS[np.argmin(abs(LRS - 0.077))] / 1000, rel=0.3
    )
    late = falling_then_diverging(-3.0)
    result = choose_bounds(LRS, late, LRRangeTest(choose="minimum/10"))
    assert result.lr_min <= result.lr_max / 10


@pytest.mark.parametrize("choose", ["halfway", "edge/2", "steepest", "valley", "minimum/10"])
def test_choose_selects_the_candidate(choose):
    result = choose_bounds(LRS, falling_then_diverging(-3.0), LRRangeTest(choose=choose))
    assert result.lr_max == result.candidates[choose]


def test_the_valley_is_halfway_along_the_longest_descent():
    losses = np.concatenate([np.linspace(1.5, 2.3, 20), np.linspace(2.29, 1.0, 60), np.linspace(1.2, 9, 20)])
    assert _valley(losses) == pytest.approx(20 + 60 // 2, abs=1)


def rippled(noise: float, seed: int) -> np.ndarray:
    """A loss that falls from 2.3 to 1.7 at 5e-3, rises to 3 at 2e-2, and falls again, as Adam's does."""
    x = np.log10(LRS)
    smooth = np.interp(x, [-5, -4.3, -2.3, -1.7, -0.7, 0], [2.3, 2.25, 1.7, 3.0, 1.6, 4])
    return smooth + noise * np.random.default_rng(seed).normal(size=100)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.04])
def test_the_edge_is_where_the_loss_first_rises_and_not_its_lowest_point(noise):
    # the descent is 0.6; the loss is a fifth of it above 1.7 at log10 LR = -2.3 + 0.12 / 1.3 * 0.6
    edge = 10 ** (-2.3 + 0.12 / 1.3 * 0.6)
    for seed in range(5):
        found = choose_bounds(LRS, rippled(noise, seed), LRRangeTest(), usual=2e-3)
        assert found.candidates["edge/2"] == pytest.approx(edge / 2, rel=0.35)
        assert found.lr_max == found.candidates["halfway"] == pytest.approx(math.sqrt(2e-3 * edge), rel=0.17)


def test_without_an_edge_the_lowest_point_counts():
    falling = np.interp(np.log10(LRS), [-5, -4, -1, 0], [2.3, 2.2, 1.0, 0.9])
    assert choose_bounds(LRS, falling, LRRangeTest()).candidates["edge/2"] == pytest.approx(0.5, rel=0.3)


def test_halfway_never_lies_beyond_the_edge():
    early = np.interp(np.log10(LRS), [-5, -4.8, -4, -3.8, 0], [2.3, 2.2, 1.5, 1.9, 9])
    found = choose_bounds(LRS, early, LRRangeTest())
    assert found.lr_max == 2 * found.candidates["edge/2"] < USUAL["adam"]


def test_rules_that_disagree_are_noted():
    found = choose_bounds(LRS, falling_then_diverging(-3.0), LRRangeTest())
    ratio = max(found.candidates.values()) / min(found.candidates.values())
    assert found.notes == [f"the rules differ by a factor of {ratio:.0f}; compare learning rates by training: lr-sweep"]


@pytest.mark.parametrize(
    "losses",
    [np.full(100, 2.3), 2.3 + 0.05 * np.random.default_rng(0).normal(size=100), np.linspace(2.3, 9, 100)],
    ids=["constant", "noise", "rising"],
)
def test_a_loss_that_does_not_fall_leaves_usual_bounds_and_a_note_that_says_what_to_pass(losses):
    found = choose_bounds(LRS, losses, LRRangeTest())
    assert (found.lr_max, found.candidates) == (USUAL["adam"], {})
    assert "the loss does not fall between LR 1e-05 and 1" in found.notes[0]
    assert "`lr_max`" in found.notes[0]


def test_a_curve_that_diverges_immediately_is_an_error():
    with pytest.raises(UserError, match="diverged after 3 of 100 steps; start lower"):
        choose_bounds(LRS[:3], np.array([2.3, 2.2, 9.0]), LRRangeTest())


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (LRRangeTest(min=0), "`lr_find.min` must be positive and below `lr_find.max`; received 0 and 1"),
        (LRRangeTest(min=1.0, max=0.1), "received 1 and 0.1"),
        (LRRangeTest(steps=5), "`lr_find.steps` must be at least 10; received 5"),
    ],
)
def test_invalid_options_are_refused(test, message):
    with pytest.raises(UserError, match=message):
        test.check()


@pytest.fixture(scope="module")
def digits() -> CIFAR10DataModule:
    return CIFAR10DataModule(source="digits", batch_size=128, seed=0)


def test_measures_every_step_over_several_epochs_and_leaves_no_trace(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = ImageClassifier(width=8)
    before = copy.deepcopy(model.state_dict())
    result = run_lr_range_test(model, digits, LRRangeTest(steps=40))
    assert result.lrs[0] == 1e-5
    assert result.lrs[1:] == pytest.approx(np.logspace(-5, 0, 41)[2:].tolist())
    assert len(result.lrs) == len(result.losses) == 40  # more than the 12 steps of one epoch
    assert result.losses[0] == pytest.approx(math.log(10), rel=0.01)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert (model.hparams["lr_max"], model.hparams["lr_min"]) == (None, None)
    assert list(tmp_path.iterdir()) == []


def test_the_recorded_losses_are_those_that_the_tuner_averages(digits, monkeypatch):
    """The Tuner reports a moving average, whose bias correction is one step too late."""
    finders = []

    class RecordingTuner(Tuner):
        def lr_find(self, *args, **kwargs):
            finders.append(super().lr_find(*args, **kwargs))
            return finders[-1]

    monkeypatch.setattr(range_test, "Tuner", RecordingTuner)
    losses = run_lr_range_test(ImageClassifier(width=4), digits, LRRangeTest(steps=20, min=1e-4, max=1e-2)).losses
    average, reported = 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = 0.98 * average + 0.02 * loss
        reported.append(average / (1 - 0.98 ** (step + 1)))
    assert finders[0].results["loss"] == pytest.approx(reported, rel=1e-5)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_it_records_the_learning_rate_and_the_loss_of_every_optimizer_step(accumulated):
    """Against a plain loop; with several batches per step, their mean loss."""
    data = CIFAR10DataModule(source="digits", batch_size=64, seed=0)
    model = ImageClassifier(width=4)
    network = copy.deepcopy(model.net).train()
    test = LRRangeTest(steps=10, min=1e-4, max=1e-2)
    result = run_lr_range_test(model, data, test, accumulate_grad_batches=accumulated)
    adam = torch.optim.Adam(network.parameters())
    batches = iter(data.train_dataloader())
    losses = []
    for lr in result.lrs:
        adam.param_groups[0]["lr"] = lr
        adam.zero_grad()
        losses.append(0.0)
        for images, labels in itertools.islice(batches, accumulated):
            loss = torch.nn.functional.cross_entropy(network(images), labels) / accumulated
            loss.backward()
            losses[-1] += loss.item()
        adam.step()
    assert result.losses == pytest.approx(losses, rel=1e-3)
    assert losses[-1] < losses[0]


def test_fewer_steps_than_requested_raise_an_error(digits, monkeypatch):
    class ShortTuner(Tuner):
        def lr_find(self, *args, **kwargs):
            return super().lr_find(*args, **{**kwargs, "num_training": 15})

    monkeypatch.setattr(range_test, "Tuner", ShortTuner)
    with pytest.raises(UserError, match="measured only 15 of 20 learning rates"):
        run_lr_range_test(ImageClassifier(width=4), digits, LRRangeTest(steps=20, max=1e-3))


def test_five_seeds_agree_within_a_factor_of_three():
    found, policy = [], Augmentation(pad=2, flip=0, cutout=4)  # as in the demo
    for seed in range(5):
        torch.manual_seed(seed)
        data = CIFAR10DataModule(source="digits", batch_size=64, augment=policy, seed=seed)
        found.append(run_lr_range_test(ImageClassifier(width=8), data, LRRangeTest(steps=60)).lr_max)
    assert max(found) / min(found) <= 3, found


def test_the_median_of_two_is_their_geometric_mean():
    one = choose_bounds(LRS, falling_then_diverging(-3.5), LRRangeTest())
    other = choose_bounds(LRS, falling_then_diverging(-2.5), LRRangeTest())
    assert RepeatedLRRange([0, 1], [one, other]).lr_max == pytest.approx(math.sqrt(one.lr_max * other.lr_max))
