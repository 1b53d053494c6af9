"""The LR sweep: it trains the networks it measures, each on its own, and survives being killed."""

import copy
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from customresnet import CIFAR10DataModule, ImageClassifier
from customresnet.schedules.schedule import Schedule
from customresnet.training import lr_sweep_command
from customresnet.training.lr.sweep import LRSweep, measure_points, train_at
from customresnet.training.lr.sweep_result import LRPoint, LRSweepResult
from tests.conftest import SMALL, interrupt, read_json

WORDS = [*SMALL, "--points", "5", "--steps", "4", "--start", "1e-4", "--end", "1e-1"]
FOLDER = Path("lightning_logs/demo")
OPTIONS = {"precision": "32-true"}


@pytest.fixture(scope="module")
def digits() -> CIFAR10DataModule:
    data = CIFAR10DataModule(source="digits", batch_size=128, seed=0)
    data.setup("fit")
    return data


# -------------------------------------------------------------------------------------------------------- one point


def test_the_optimizer_steps_the_network_that_is_measured(digits):
    model = ImageClassifier(width=8)
    untouched = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    start = model.at_constant_lr(1e-3).state_dict()
    still, barely = train_at(1e-12, model, digits, 24, OPTIONS)
    learned, moved = train_at(3e-3, model, digits, 24, OPTIONS)
    for name, weights in dict(moved.net.named_parameters()).items():
        assert not torch.allclose(weights, start[f"net.{name}"], atol=1e-5), name
        assert torch.allclose(dict(barely.net.named_parameters())[name], start[f"net.{name}"], atol=1e-8), name
    assert still.train_acc < 0.2
    assert learned.train_acc > 0.4
    assert all(torch.equal(a, b) for a, b in zip(untouched.values(), model.state_dict().values(), strict=True))


def test_it_measures_what_a_plain_loop_measures(digits):
    """15 steps of 12 an epoch, so the last quarter is steps 13 to 15: the first three batches of the second epoch."""
    point, _ = train_at(3e-3, ImageClassifier(width=4), digits, 15, OPTIONS)
    torch.manual_seed(0)
    network = ImageClassifier(width=4).net.train()
    adam = torch.optim.Adam(network.parameters(), lr=3e-3)
    loader = digits.train_dataloader()
    loader.trainer = None
    batches = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        batches += list(loader)
    correct, losses = [], []
    for images, labels in batches[:15]:
        logits = network(images)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        correct.append(int((logits.argmax(1) == labels).sum()))
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert point.images == 3 * 128
    assert point.train_acc == pytest.approx(sum(correct[-3:]) / 384, abs=2 / 384)
    assert point.train_loss == pytest.approx(sum(losses[-3:]) / 3, rel=1e-3)


def test_the_rate_is_constant_and_the_momentum_the_optimizers_own():
    model = ImageClassifier(width=4, policy="triangular", half_cycle=2, weight_decay=0.1).at_constant_lr(0.02)
    schedule = Schedule.of(model.policy(), model.new_optimizer(), 30, 10)
    assert set(schedule.lr) == {0.02}
    assert set(schedule.momentum) == {0.9}
    assert model.hparams["weight_decay"] == 0.1


def test_points_do_not_depend_on_their_order(digits):
    model, rates = ImageClassifier(width=4), [1e-4, 3e-3, 1e-1]
    rising = list(measure_points(rates, model, digits, 6, OPTIONS))
    falling = list(measure_points(rates[::-1], model, digits, 6, OPTIONS))
    assert rising == falling[::-1]
    assert len({point.train_loss for point in rising}) == 3


def test_points_measured_in_processes_are_the_same_to_rounding(digits):
    model, rates = ImageClassifier(width=4), [1e-4, 3e-3]
    alone = list(measure_points(rates, model, digits, 6, OPTIONS))
    beside = sorted(measure_points(rates, model, digits, 6, OPTIONS, parallel=2), key=lambda point: point.lr)
    for one, other in zip(alone, beside, strict=True):
        assert other.lr == one.lr
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-3)


def test_a_point_whose_loss_is_no_longer_finite_is_recorded_and_the_sweep_goes_on(digits):
    points = list(measure_points([1e30, 1e-3], ImageClassifier(width=4), digits, 6, OPTIONS))
    assert [point.diverged for point in points] == [True, False]
    assert points[0].train_acc is None


# ---------------------------------------------------------------------------------------------------- the suggestion


def swept(*accuracies: float | None, val: tuple[float, ...] | None = None, val_images: int = 5000) -> LRSweepResult:
    lrs = LRSweep(points=len(accuracies), start=1e-4, end=1.0, spacing="log").lrs()
    points = [
        LRPoint(lr, None, None, None, 0, diverged=True)
        if accuracy is None
        else LRPoint(lr, accuracy, 1.0, val[number] if val else None, 5120, val_images if val else 0)
        for number, (lr, accuracy) in enumerate(zip(lrs, accuracies, strict=True))
    ]
    return LRSweepResult({"--spacing": "log"}, lrs, 40, points)


def test_lrmax_is_the_best_point_and_lrmin_a_tenth_of_it():
    result = swept(0.2, 0.4, 0.5, 0.3, None)
    assert result.lr_max == pytest.approx(1e-2)
    assert result.lr_min == pytest.approx(1e-3)
    assert result.doubts() == []


def test_held_out_images_decide_where_there_are_any():
    assert swept(0.2, 0.4, 0.5, val=(0.2, 0.4, 0.3)).lr_max == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("accuracies", "doubt"),
    [
        ((0.5, 0.4, 0.3), "the best point is the lowest learning rate tried: take a --start below 0.0001"),
        ((0.3, 0.4, 0.5), "the best point is the highest learning rate tried: take an --end above 1"),
        ((0.100, 0.105, 0.101), "the curve is flat, 10.0% to 10.5%"),
        ((None, None, None), "every learning rate diverged"),
    ],
)
def test_a_doubtful_suggestion_says_so(accuracies, doubt):
    (said,) = swept(*accuracies).doubts()
    assert doubt in said


def test_flatness_is_judged_by_the_images_that_decide():
    """41, 44, 40 % of 100 held-out images are chance; of 5,000 they are not."""
    few, many = (swept(0.2, 0.4, 0.3, val=(0.41, 0.44, 0.40), val_images=n) for n in (100, 5000))
    assert "the curve is flat" in few.doubts()[0]
    assert many.doubts() == []


def test_an_edge_beside_diverged_points_is_none():
    assert swept(0.3, 0.4, 0.5, None).doubts() == []


def test_the_learning_rates_are_evenly_spaced():
    assert LRSweep(points=5, start=0.1, end=0.5).lrs() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert LRSweep(points=4, start=1e-4, end=1e-1, spacing="log").lrs() == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert LRSweep().lrs()[::19] == pytest.approx([1e-4, 1.0])


# ------------------------------------------------------------------------------------------------------- the command


def sweep_json(version: int) -> dict:
    return read_json(FOLDER / f"version_{version}/lr_sweep.json")


def test_killed_after_three_points_and_resumed_it_equals_the_whole_one(run, tmp_path):
    assert run("lr-sweep", *WORDS).code == 0
    command = [sys.executable, "-m", "customresnet", "lr-sweep", *WORDS]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if line.startswith("point 3/5"):
            break
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    measured = len(sweep_json(1)["points"])
    assert 3 <= measured < 5
    assert not sweep_json(1)["finished"]
    outcome = run(
        "lr-sweep", *WORDS, "--resume", "--points", "6", "--data.batch_size", "64", "--data.train_size", "500"
    )
    assert outcome.code == 2
    assert "--points: received 6, but the sweep was begun with 5" in outcome.err
    assert "--data.batch_size: received 64, but the sweep was begun with 128" in outcome.err
    assert "--data.train_size: received 500, but the sweep was begun with None" in outcome.err
    outcome = run("lr-sweep", *WORDS, "--resume")
    assert outcome.code == 0, outcome.err
    assert f"{measured} of 5 points are measured" in outcome.out
    assert len(re.findall("^point ", outcome.out, re.M)) == 5 - measured
    assert sweep_json(1) == sweep_json(0)
    assert not (FOLDER / "version_2").exists()
    outcome = run("lr-sweep", *WORDS, "--resume")
    assert outcome.code == 2
    assert "every LR sweep is finished" in outcome.err


def test_it_leaves_points_suggestion_and_picture(run):
    outcome = run("lr-sweep", *WORDS, "--data.val_size", "100", "--points", "3")
    assert outcome.code == 0, outcome.err
    result = sweep_json(0)
    assert result["steps"] == 4
    assert [point["lr"] for point in result["points"]] == pytest.approx([1e-4, 3.162e-3, 1e-1], rel=1e-3)  # log: demo
    best = max(result["points"], key=lambda point: point["val_acc"])
    assert (result["lr_max"], result["lr_min"]) == pytest.approx((best["lr"], best["lr"] / 10))
    assert (FOLDER / "version_0/lr_sweep.png").read_bytes().startswith(b"\x89PNG")
    assert f"--model.lr_max {best['lr']:.3g}" in outcome.out
    assert not list(Path().rglob("*.ckpt"))


def test_its_length_is_given_in_epochs_or_steps(run, monkeypatch):
    lengths = []

    def measure(lrs, model, datamodule, steps, *_):
        lengths.append(steps)
        yield from (LRPoint(lr, 0.1, 2.3, None, 128) for lr in lrs)

    monkeypatch.setattr(lr_sweep_command, "measure_points", measure)
    for words in ([], ["--epochs", "0.5"], ["--steps", "30"], ["--trainer.accumulate_grad_batches", "4"]):
        run("lr-sweep", *SMALL, "--points", "2", *words)
    assert lengths == [12, 6, 30, 3]


def test_interrupted_it_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "customresnet", "lr-sweep", *WORDS, "--points", "200"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen(command, cwd=tmp_path, **pipes)
    for line in child.stdout:
        if line.startswith("point   2/200"):
            break
    out, err = interrupt(child)
    assert child.returncode == 1
    measured = len(read_json(tmp_path / FOLDER / "version_0/lr_sweep.json")["points"])
    assert f"interrupted: {measured} of 200 points are kept; go on with: --resume" in out, err
