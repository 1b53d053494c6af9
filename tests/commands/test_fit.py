"""The fit command: what a run leaves behind, and the options that change what it evaluates and keeps."""

import os
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

import customresnet
from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from tests.conftest import BOUNDS, SMALL, one_line, read_json


def test_a_run_leaves_one_complete_folder(small_run):
    left = {p.relative_to(small_run).as_posix() for p in small_run.rglob("*") if p.is_file()}
    assert left >= {"config.yaml", "epochs.csv", "result.json", "lr_find.json", "lr_find.png", "checkpoints/last.ckpt"}
    found, result = read_json(small_run / "lr_find.json"), read_json(small_run / "result.json")
    config = yaml.safe_load((small_run / "config.yaml").read_text())
    assert {"lrs", "losses", "smoothed", "candidates", "lr_max", "lr_min", "notes"} == set(found)
    assert set(found["candidates"]) == {"halfway", "edge/2", "steepest", "valley", "minimum/10"}
    for place in (config["model"], result):
        assert (place["lr_max"], place["lr_min"]) == (found["lr_max"], found["lr_min"])
    assert result["test/correct"] == round(result["test/acc"] * 360)
    assert result["epochs"] == 2
    assert result["parameters"] == sum(p.numel() for p in ImageClassifier(width=8).net.parameters())


def test_tensorboard_shows_curves_figures_graph_and_hparams(small_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags, steps, hparams = set(), {}, []
    for file in small_run.glob("events.out.tfevents.*"):
        events = EventAccumulator(str(file), {"images": 0, "scalars": 0}).Reload()
        found = events.Tags()
        hparams.append(events.summary_metadata)
        tags |= {*found["scalars"], *found["images"], *found["tensors"]} | ({"graph"} if found["graph"] else set())
        steps |= {tag: [e.step for e in events.Scalars(tag)] for tag in found["scalars"]}
    assert tags >= {"train/loss", "train/acc", "test/loss", "test/acc", "lr", "lr-momentum", "final/test_acc"}
    assert tags >= {"LR range test", "training images, augmented", "graph", "custom_scalars__config__"}
    assert any("_hparams_/session_start_info" in found for found in hparams)
    assert len(steps["lr"]) == len(steps["lr-momentum"]) == 24  # every step
    assert len(steps["test/acc"]) == 2


def test_held_out_images_are_evaluated_after_every_epoch_and_test_images_once(run):
    outcome = run("fit", *SMALL, *BOUNDS, "--data.val_size", "100")
    folder = Path("lightning_logs/demo/version_0")
    header, first, last = (line.split(",") for line in (folder / "epochs.csv").read_text().splitlines())
    assert header[:7] == ["epoch", "step", "lr", "train/acc", "train/loss", "val/acc", "val/loss"]
    assert sorted(header[7:]) == ["test/acc", "test/loss"]  # of the one evaluation, after the last epoch
    assert first[7:] == ["", ""]
    assert float(last[header.index("test/acc")]) == read_json(folder / "result.json")["test/acc"]
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    result = read_json(folder / "result.json")
    assert f"{result['test/correct']}/360" in outcome.out
    assert run("validate", "--ckpt_path", str(folder)).code == 0
    assert read_json(folder / "validate.json")["val/acc"] == result["val/acc"]


def test_a_run_killed_just_before_its_end_keeps_its_best_checkpoint(run):
    run("fit", *SMALL, *BOUNDS, "--data.val_size", "100", "--trainer.max_epochs", "3")
    folder = Path("lightning_logs/demo/version_0")
    os.unlink(folder / "result.json")  # as if killed just before its end
    path = folder / "checkpoints/last.ckpt"
    whole = torch.load(path, weights_only=True)
    rows = next(state["rows"] for name, state in whole["callbacks"].items() if name.startswith("RunLog"))
    best = max(rows, key=lambda row: row["val/acc"])
    assert torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["epoch"] + 1 == best["epoch"]
    outcome = run("fit", "--config", "demo", "--ckpt_path", "last")
    assert outcome.code == 0, outcome.err
    assert "dirpath has changed" not in outcome.err
    assert "/360" in outcome.out
    assert read_json(folder / "result.json")["test/images"] == 360


class WorseSecondEpoch(pl.Callback):
    """Kill the second epoch, or reset the network's head before its evaluation."""

    def __init__(self, killed: bool) -> None:
        self.killed = killed

    def on_train_epoch_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        if trainer.current_epoch == 1 and self.killed:
            raise RuntimeError("killed")

    def on_validation_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            torch.nn.init.zeros_(model.net.head.weight)


def test_a_resumed_run_keeps_an_earlier_best_checkpoint(tmp_path):
    def fit(killed: bool, ckpt_path: str | None = None) -> Path:
        options = {"precision": "32-true", "default_root_dir": str(tmp_path), "enable_progress_bar": False}
        trainer = Trainer(max_epochs=2, callbacks=[WorseSecondEpoch(killed)], **options)
        data = CIFAR10DataModule(source="digits", batch_size=128, val_size=200, seed=0)
        model = ImageClassifier(width=4, lr_max=1e-2, lr_min=1e-2)
        customresnet.fit(model, data, trainer, ckpt_path=ckpt_path, report=False)
        return Path(trainer.log_dir) / "checkpoints"

    with pytest.raises(RuntimeError, match="killed"):
        fit(killed=True)
    checkpoints = fit(killed=False, ckpt_path="last")
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["epoch"] == 1
    assert torch.load(checkpoints / "best.ckpt", weights_only=True)["epoch"] == 0


def test_a_run_that_ends_within_an_epoch_is_evaluated_at_its_end(run):
    outcome = run("fit", *SMALL, *BOUNDS, "--trainer.max_steps", "20", "--trainer.max_epochs", "9")
    assert outcome.code == 0
    folder = Path("lightning_logs/demo/version_0")
    rows = (folder / "epochs.csv").read_text().splitlines()
    assert rows[0] == "epoch,step,lr,test/acc,test/loss,train/acc,train/loss"
    first, last = (row.split(",") for row in rows[1:])
    result = read_json(folder / "result.json")
    assert last[1] == "20"
    assert (float(last[3]), float(last[4])) == (result["test/acc"], result["test/loss"])  # not the first epoch's again
    assert result["steps"] == 20
    assert run("test", "--ckpt_path", str(folder)).code == 0
    tested = read_json(folder / "test.json")
    assert result["test/loss"] != pytest.approx(float(first[4]))
    assert result["test/correct"] == tested["test/correct"]


def test_evaluation_can_be_limited_or_switched_off(run):
    outcome = run("fit", *SMALL, *BOUNDS, "--trainer.limit_val_batches", "1", "--trainer.max_epochs", "1")
    assert outcome.code == 0
    assert "/128 (" in outcome.out
    outcome = run("fit", *SMALL, *BOUNDS, "--trainer.limit_val_batches", "1.0", "--trainer.max_epochs", "1")
    assert "/360 (" in outcome.out
    outcome = run("fit", *SMALL, *BOUNDS, "--trainer.limit_val_batches", "0", "--trainer.max_epochs", "1")
    assert outcome.code == 0
    assert "not evaluated" in outcome.out
    assert "test/acc" not in read_json(Path("lightning_logs/demo/version_2/result.json"))


def test_without_a_logger_only_checkpoints_are_kept(run):
    assert run("fit", *SMALL, *BOUNDS, "--trainer.logger", "false").code == 0
    assert [p.as_posix() for p in Path().rglob("*") if p.is_file()] == ["checkpoints/last.ckpt"]


def test_a_finished_run_cannot_be_resumed(run, small_run):
    one_line(run("fit", "--ckpt_path", str(small_run)), "this run is finished", "result.json")


def test_fast_dev_run_says_what_it_skips(run):
    outcome = run("fit", *SMALL, "--trainer.fast_dev_run", "true")
    assert outcome.code == 0
    assert "fast_dev_run: no LR range test, constant LR 0.001" in outcome.out
    assert not Path("lightning_logs").exists()
