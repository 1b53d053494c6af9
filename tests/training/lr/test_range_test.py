"""The LR range test: bounds read off curves whose right answer is known, and no trace left in the run."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning.tuner import Tuner

from customresnet import Augmentation, CIFAR10DataModule, ImageClassifier, LRRangeTest
from customresnet.runtime.errors import UserError
from customresnet.training.lr import range_test as lr_range
from customresnet.training.lr.bounds import RepeatedLRRange, _valley, choose_bounds
from customresnet.training.lr.range_test import _unsmooth, run_lr_range_test
from tests.conftest import SMALL, read_json

LRS = np.logspace(-5, 0, 100)


def sigmoid_then_blow_up(centre: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A loss of 2.3 that falls by 1.5 around log10 LR = centre, and explodes 1.5 decades later."""
    x = np.log10(LRS)
    fall = 2.3 - 1.5 / (1 + np.exp(-6 * (x - centre)))
    return fall + np.exp(8 * (x - centre - 1.5)) + noise * np.random.default_rng(seed).normal(size=100)


@pytest.mark.parametrize("centre", [-3.5, -3.0, -2.5])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_lrmax_is_where_the_loss_falls_fastest(centre, noise):
    result = choose_bounds(LRS, sigmoid_then_blow_up(centre, noise), LRRangeTest())
    assert abs(math.log10(result.lr_max) - centre) < 0.2
    assert result.candidates["steepest"] == result.lr_max
    bottom = LRS[np.argmin(sigmoid_then_blow_up(centre))]
    assert math.log10(result.candidates["minimum/10"] * 10 / bottom) == pytest.approx(0, abs=0.4)
    assert result.lr_max / 1000 <= result.lr_min <= result.lr_max / 10


def test_lrmin_is_where_the_loss_first_falls_clearly():
    """A slow fall over three decades: LRMIN at a twentieth of it, LRMAX at its end."""
    x = np.log10(LRS)
    losses = np.interp(x, [-5, -4.5, -2, -1.9, -1, 0], [2.3, 2.3, 1.8, 1.3, 1.3, 9])
    result = choose_bounds(LRS, losses, LRRangeTest())
    assert math.log10(result.lr_max) == pytest.approx(-1.95, abs=0.1)
    assert math.log10(result.lr_min) == pytest.approx(-4.25, abs=0.15)


def test_lrmin_stays_within_a_thousandth_and_a_tenth_of_lrmax():
    early = np.interp(np.log10(LRS), [-5, -4.8, -1.2, -1.0, -0.5, 0], [2.3, 2.0, 1.9, 0.9, 0.9, 9])
    assert choose_bounds(LRS, early, LRRangeTest()).lr_min == pytest.approx(
        LRS[np.argmin(abs(LRS - 0.077))] / 1000, rel=0.3
    )
    late = sigmoid_then_blow_up(-3.0)
    result = choose_bounds(LRS, late, LRRangeTest(choose="minimum/10"))
    assert result.lr_min <= result.lr_max / 10


@pytest.mark.parametrize("choose", ["steepest", "valley", "minimum/10"])
def test_the_candidate_asked_for_is_taken(choose):
    result = choose_bounds(LRS, sigmoid_then_blow_up(-3.0), LRRangeTest(choose=choose))
    assert result.lr_max == result.candidates[choose]


def test_the_valley_lies_half_way_down_the_longest_descent():
    losses = np.concatenate([np.linspace(1.5, 2.3, 20), np.linspace(2.29, 1.0, 60), np.linspace(1.2, 9, 20)])
    assert _valley(losses) == pytest.approx(20 + 60 // 2, abs=1)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (np.full(100, 2.3), "no fall of the loss"),
        (2.3 + 0.05 * np.random.default_rng(0).normal(size=100), "no fall of the loss"),
        (np.linspace(2.3, 9, 100), "no fall of the loss"),
        (np.array([2.3, 2.2, 9.0]), "diverged after 3 of 100 steps; start lower"),
    ],
)
def test_a_curve_without_bounds_is_an_error_that_says_what_to_pass(losses, message):
    with pytest.raises(UserError, match=message) as error:
        choose_bounds(LRS[: len(losses)], losses, LRRangeTest())
    assert "--model.lr_max" in str(error.value)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (LRRangeTest(min=0), "--lr_find.min and --lr_find.max must be positive and rising; received 0 and 1"),
        (LRRangeTest(min=1.0, max=0.1), "received 1 and 0.1"),
        (LRRangeTest(steps=5), "--lr_find.steps must be at least 10; received 5"),
    ],
)
def test_a_wrong_option_is_named(test, message):
    with pytest.raises(UserError, match=message):
        test.check()


def test_the_true_losses_are_taken_out_of_the_tuners_moving_average():
    losses, average, reported = [4.0, 2.0, 3.0, 2.5, 1.0], 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = 0.98 * average + 0.02 * loss
        reported.append(average / (1 - 0.98 ** (step + 1)))
    assert _unsmooth(reported) == pytest.approx(losses)


@pytest.fixture(scope="module")
def digits() -> CIFAR10DataModule:
    return CIFAR10DataModule(source="digits", batch_size=128, seed=0)


def test_it_measures_the_asked_steps_over_several_epochs_and_leaves_no_trace(digits, tmp_path, monkeypatch):
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


def test_fewer_points_than_asked_for_are_an_error(digits, monkeypatch):
    class Short(Tuner):
        def lr_find(self, *args, **kwargs):
            finder = super().lr_find(*args, **kwargs)
            finder.results = {name: values[:15] for name, values in finder.results.items()}
            return finder

    monkeypatch.setattr(lr_range, "Tuner", Short)
    with pytest.raises(UserError, match="measured only 15 of 20 learning rates"):
        run_lr_range_test(ImageClassifier(width=4), digits, LRRangeTest(steps=20, max=1e-3))


def test_five_seeds_agree_within_a_factor_of_three():
    found, policy = [], Augmentation(pad=2, flip=0, cutout=4)  # the demo's
    for seed in range(5):
        torch.manual_seed(seed)
        data = CIFAR10DataModule(source="digits", batch_size=64, augment=policy, seed=seed)
        found.append(run_lr_range_test(ImageClassifier(width=8), data, LRRangeTest(steps=60)).lr_max)
    assert max(found) / min(found) <= 3, found


def test_repeated_over_seeds_it_suggests_the_median_and_leaves_the_seed_as_it_was(run):
    outcome = run("lr-find", *SMALL, "--lr_find.steps", "40", "--repeat", "3", "--seed_everything", "5")
    assert outcome.code == 0, outcome.err
    folder = Path("lightning_logs/demo/version_0")
    found = read_json(folder / "lr_find.json")
    each = found["seeds"]
    assert [test["seed"] for test in each] == [5, 6, 7]
    assert len({tuple(test["losses"]) for test in each}) == 3  # another network and another order each
    assert found["lr_max"] == sorted(test["lr_max"] for test in each)[1]
    assert found["spread"]["lr_max"] == [min(t["lr_max"] for t in each), max(t["lr_max"] for t in each)]
    assert (folder / "lr_find.png").read_bytes().startswith(b"\x89PNG")
    run("lr-find", *SMALL, "--lr_find.steps", "40", "--seed_everything", "6")
    assert read_json(Path("lightning_logs/demo/version_1/lr_find.json"))["losses"] == each[1]["losses"]


def test_the_median_of_an_even_number_lies_half_way_on_the_log_scale():
    one = choose_bounds(LRS, sigmoid_then_blow_up(-3.5), LRRangeTest())
    other = choose_bounds(LRS, sigmoid_then_blow_up(-2.5), LRRangeTest())
    assert RepeatedLRRange([0, 1], [one, other]).lr_max == pytest.approx(math.sqrt(one.lr_max * other.lr_max))


def test_update_writes_a_recipe_that_fit_takes_and_keeps_what_else_it_holds(run):
    Path("mine.yaml").write_text("trainer:\n  max_epochs: 1\nmodel:\n  width: 4\n  lr_max: 1.0\n")
    find = ["lr-find", "--config", "demo", "--data.batch_size", "128", "--lr_find.steps", "30", "--update"]
    outcome = run(*find, "mine.yaml", "--model.width", "4")
    assert "fit --config mine.yaml" in outcome.out
    found = read_json(Path("lightning_logs/demo/version_0/lr_find.json"))
    recipe = yaml.safe_load(Path("mine.yaml").read_text())
    bounds = {"lr_max": found["lr_max"], "lr_min": found["lr_min"]}
    assert recipe == {"trainer": {"max_epochs": 1}, "model": {"width": 4, **bounds}}
    outcome = run("fit", "--config", "demo", "--config", "mine.yaml")
    assert "LR range test" not in outcome.out
    assert read_json(Path("lightning_logs/demo/version_1/result.json"))["lr_max"] == found["lr_max"]
    outcome = run(*find, "new.yaml", "--model.width", "4")
    assert yaml.safe_load(Path("new.yaml").read_text()) == {"model": bounds}
