"""The schedule command: it shows what a real run then does."""

import csv
from pathlib import Path

import pytest
import pytorch_lightning as pl

from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.data import sources
from tests.conftest import BOUNDS, SMALL, make_tree, read_json


def written(folder: str = "lightning_logs/demo") -> list[dict[str, str]]:
    """The rows of a schedule.csv; there must be a figure beside it."""
    assert (Path(folder) / "schedule.png").read_bytes().startswith(b"\x89PNG")
    return list(csv.DictReader((Path(folder) / "schedule.csv").read_text().splitlines()))


class StepRecorder(pl.Callback):
    """Learning rate and momentum of each optimizer step of a real run."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        group = optimizer.param_groups[0]
        self.steps.append((group["lr"], group["betas"][0]))


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
def test_shows_the_learning_rates_and_momenta_of_a_real_run(run, options, per_epoch, length, policy):
    words = [word for name, value in options.items() for word in (f"--trainer.{name}", str(value))]
    assert run("schedule", *SMALL, *BOUNDS, "--model.policy", policy, *words).code == 0
    rows = written()
    recorder = StepRecorder()
    trainer = Trainer(callbacks=[recorder], logger=False, enable_checkpointing=False, limit_val_batches=0, **options)
    model = ImageClassifier(width=4, lr_max=3e-3, lr_min=1e-4, policy=policy)
    trainer.fit(model, datamodule=CIFAR10DataModule(source="digits", batch_size=128, seed=0))
    assert len(recorder.steps) == len(rows) == length
    assert [float(row["lr"]) for row in rows] == pytest.approx([lr for lr, _ in recorder.steps], rel=1e-12)
    assert [float(row["momentum"]) for row in rows] == pytest.approx([m for _, m in recorder.steps], rel=1e-12)
    assert [int(r["step"]) for r in rows] == list(range(length))
    assert [int(r["epoch"]) for r in rows] == [step // per_epoch + 1 for step in range(length)]


def test_counts_the_images_of_each_source_without_reading_one(run, monkeypatch):
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


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_counted_digits_are_as_many_as_the_loaded_ones(split):
    assert sources.count("digits", None, split) == len(sources.load("digits", None, split))


def test_unknown_bounds_are_assumed_and_reported_as_such(run):
    outcome = run("schedule", "--config", "demo")
    rates = [float(row["lr"]) for row in written()]
    assert (rates[0], max(rates), rates[-1]) == pytest.approx((0.1, 1.0, 0.1))
    assert "assumed: LRMIN is LRMAX/10, LRMAX is not known yet" in outcome.out
    outcome = run("schedule", "--config", "demo", "--model.lr_max", "0.02")
    assert float(written()[0]["lr"]) == pytest.approx(0.002)
    assert outcome.out.count("assumed") == 1
    assert "assumed" not in run("schedule", "--config", "demo", *BOUNDS).out


def test_takes_the_flags_of_fit_and_the_checkpoint_of_a_run(run, small_run):
    flags = ["--lr_find.steps", "30", "--report", "false", "--model.compile", "true"]
    assert run("schedule", *SMALL, *BOUNDS, *flags).code == 0
    outcome = run("schedule", "--ckpt_path", str(small_run))
    assert outcome.code == 0, outcome.err
    result = read_json(small_run / "result.json")
    rates = [float(row["lr"]) for row in written(str(small_run))]
    assert len(rates) == result["steps"]
    assert (min(rates), max(rates)) == pytest.approx((result["lr_min"], result["lr_max"]))
    (small_run / "schedule.csv").unlink()
    (small_run / "schedule.png").unlink()
