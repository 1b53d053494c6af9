"""Both policies against closed forms written out here, and the `schedule` command against a real run."""

import csv
import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from customresnet import CIFAR10DataModule, ImageClassifier, OneCycle, Trainer, Triangular
from customresnet.data import sources
from customresnet.schedules.schedule import Schedule
from tests.conftest import BOUNDS, SMALL, make_tree, read_json

LOW, HIGH = 1e-4, 3e-3


def adam() -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])


def one_cycle(step: int, steps: int, peak: int, first: float, top: float, last: float, anneal: str) -> float:
    """The value at a step, written out independently of torch."""
    start, end, share = (first, top, step / peak) if step <= peak else (top, last, (step - peak) / (steps - 1 - peak))
    if anneal == "cos":
        share = (1 - math.cos(math.pi * share)) / 2
    return start + (end - start) * share


def triangular(step: int, half: int, foot: float, top: float, mode: str, gamma: float) -> float:
    """Likewise: a triangle wave whose height shrinks by cycle or by step."""
    height = half - abs(half - step % (2 * half))  # 0 at the feet, half at the tops
    scale = {"triangular": 1.0, "triangular2": 0.5 ** (step // (2 * half)), "exp_range": gamma**step}[mode]
    return foot + (top - foot) * height / half * scale


@pytest.mark.parametrize("divisor", [1.0, 1e4])
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
def test_every_step_of_one_cycle_equals_the_closed_form(steps, per_epoch, peak_epoch, peak, anneal, divisor):
    policy = OneCycle(HIGH, LOW, peak_epoch, anneal, final_div_factor=divisor)
    schedule = Schedule.of(policy, adam(), steps, per_epoch)
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
def test_every_step_of_the_triangular_policy_equals_the_closed_form(steps, per_epoch, half_cycle, half, mode):
    policy = Triangular(HIGH, LOW, half_cycle, mode, cycle_gamma=0.99)
    schedule = Schedule.of(policy, adam(), steps, per_epoch)
    assert len(schedule.lr) == len(schedule.momentum) == steps
    for step in range(steps):
        assert schedule.lr[step] == pytest.approx(triangular(step, half, LOW, HIGH, mode, 0.99), rel=1e-9)
        assert schedule.momentum[step] == pytest.approx(triangular(step, half, 0.95, 0.85, mode, 0.99), rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_without_room_for_a_cycle_keeps_lrmin(steps):
    schedule = Schedule.of(OneCycle(HIGH, LOW), adam(), steps, 1)
    assert (schedule.lr, schedule.momentum) == ([LOW] * steps, [0.95] * steps)


@pytest.mark.parametrize("policy", [OneCycle, Triangular])
def test_momentum_can_be_left_alone(policy):
    assert set(Schedule.of(policy(HIGH, LOW, momentum=None), adam(), 20, 5).momentum) == {0.9}


@pytest.mark.parametrize("policy", [OneCycle(HIGH, LOW), Triangular(HIGH, LOW, 1)])
def test_sgd_cycles_its_own_momentum(policy):
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule = Schedule.of(policy, sgd, 21, 5)
    assert schedule.momentum_name == "momentum"
    assert (schedule.momentum[0], min(schedule.momentum), schedule.momentum[-1]) == pytest.approx((0.95, 0.85, 0.95))


# --------------------------------------------------------------------------------------------------------- the command


def written(folder: str = "lightning_logs/demo") -> list[dict[str, str]]:
    assert (Path(folder) / "schedule.png").read_bytes().startswith(b"\x89PNG")
    return list(csv.DictReader((Path(folder) / "schedule.csv").read_text().splitlines()))


class Recorder(pl.Callback):
    """LR and momentum that the optimizer takes at each step of a real run."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, float]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        group = optimizer.param_groups[0]
        self.taken.append((group["lr"], group["betas"][0]))


@pytest.mark.parametrize(
    ("options", "per_epoch", "length", "policy"),
    [
        ({"max_epochs": 2}, 12, 24, "one_cycle"),
        ({"max_epochs": 2, "limit_train_batches": 5}, 5, 10, "one_cycle"),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 6, 12, "triangular"),
        ({"max_epochs": 2, "accumulate_grad_batches": 5}, 3, 6, "one_cycle"),
        ({"max_epochs": -1, "max_steps": 15}, 12, 15, "triangular"),
    ],
)
def test_it_shows_what_a_real_run_then_takes(run, options, per_epoch, length, policy):
    words = [word for name, value in options.items() for word in (f"--trainer.{name}", str(value))]
    assert run("schedule", *SMALL, *BOUNDS, "--model.policy", policy, *words).code == 0
    rows = written()
    recorder = Recorder()
    trainer = Trainer(callbacks=[recorder], logger=False, enable_checkpointing=False, limit_val_batches=0, **options)
    model = ImageClassifier(width=4, lr_max=3e-3, lr_min=1e-4, policy=policy)
    trainer.fit(model, CIFAR10DataModule(source="digits", batch_size=128, seed=0))
    assert len(recorder.taken) == len(rows) == length
    assert [float(row["lr"]) for row in rows] == pytest.approx([lr for lr, _ in recorder.taken], rel=1e-12)
    assert [float(row["momentum"]) for row in rows] == pytest.approx([m for _, m in recorder.taken], rel=1e-12)
    assert [int(r["step"]) for r in rows] == list(range(length))
    assert [int(r["epoch"]) for r in rows] == [step // per_epoch + 1 for step in range(length)]


def test_no_image_is_read_and_each_source_has_its_size(run, monkeypatch):
    make_tree(Path("tree"), each=20)
    monkeypatch.setattr(sources, "load", lambda *_: pytest.fail("an image was read"))
    lengths = {
        (): 24 * 98,
        ("--data.val_size", "5000"): 24 * 88,
        ("--data.source", "digits", "--data.batch_size", "64"): 24 * 23,
        ("--data.source", "folder", "--data.root", "tree", "--data.batch_size", "25"): 24 * 3,  # 60 images
        ("--steps_per_epoch", "7"): 24 * 7,
        ("--steps_per_epoch", "7", "--trainer.max_epochs", "2"): 14,
    }
    for words, length in lengths.items():
        assert run("schedule", *words).code == 0
        assert len(written("lightning_logs/customresnet")) == length


@pytest.mark.parametrize("source", ["digits"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_fixed_sizes_are_those_of_the_images(source, split):
    assert sources.count(source, None, split) == len(sources.load(source, None, split))


def test_without_bounds_the_rates_are_shares_of_lrmax_and_said_to_be_assumed(run):
    outcome = run("schedule", "--config", "demo")
    rates = [float(row["lr"]) for row in written()]
    assert (rates[0], max(rates), rates[-1]) == pytest.approx((0.1, 1.0, 0.1))
    assert "assumed: LRMIN is LRMAX/10, LRMAX is not known yet" in outcome.out
    outcome = run("schedule", "--config", "demo", "--model.lr_max", "0.02")
    assert float(written()[0]["lr"]) == pytest.approx(0.002)
    assert outcome.out.count("assumed") == 1
    assert "assumed" not in run("schedule", "--config", "demo", *BOUNDS).out


def test_every_flag_of_fit_is_taken_and_a_run_shows_its_own(run, small_run):
    assert run("schedule", *SMALL, *BOUNDS, "--lr_find.steps", "30", "--model.compile", "true").code == 0
    outcome = run("schedule", "--ckpt_path", str(small_run))
    assert outcome.code == 0, outcome.err
    result = read_json(small_run / "result.json")
    rates = [float(row["lr"]) for row in written(str(small_run))]
    assert len(rates) == result["steps"]
    assert (min(rates), max(rates)) == pytest.approx((result["lr_min"], result["lr_max"]))
    (small_run / "schedule.csv").unlink()
    (small_run / "schedule.png").unlink()


def test_the_triangular_policy_trains_and_is_resumed(run):
    words = [*SMALL, *BOUNDS, "--model.policy", "triangular", "--model.cycle_mode", "exp_range"]
    run("fit", *words)
    run("fit", *words, "--trainer.callbacks", f"{__name__}.StopAfterOneEpoch")
    outcome = run("fit", "--ckpt_path", "lightning_logs/demo/version_1", "--trainer.callbacks", "[]")
    assert outcome.code == 0, outcome.err
    whole, resumed = (read_json(Path(f"lightning_logs/demo/version_{n}/result.json")) for n in (0, 1))
    assert whole["test/loss"] == resumed["test/loss"]


class StopAfterOneEpoch(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt
