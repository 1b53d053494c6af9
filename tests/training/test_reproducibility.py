"""Equal runs are bit-identical: repeated, with given bounds, with workers, killed and resumed, in two processes."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

import customresnet
from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.commands import evaluate
from tests.conftest import BOUNDS, SMALL, interrupt, read_json

FOLDER = Path("lightning_logs/demo")


def metrics(version: int = 0) -> str:
    return (FOLDER / f"version_{version}/epochs.csv").read_text()


def weights(version: int = 0) -> dict[str, torch.Tensor]:
    return torch.load(FOLDER / f"version_{version}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_runs_are_identical_with_found_or_given_bounds_and_with_any_number_of_workers(run):
    few = [*SMALL, "--data.train_size", "600"]
    find = ["--lr_find.steps", "30"]
    run("fit", *few, *find)
    run("fit", *few, *find)
    found = read_json(FOLDER / "version_0/lr_find.json")
    given = ["--model.lr_max", repr(found["lr_max"]), "--model.lr_min", repr(found["lr_min"])]
    run("fit", *few, *given)
    run("fit", *few, *given, "--data.num_workers", "2")
    for version in range(1, 4):
        assert metrics(version) == metrics(0)
        assert equal(weights(version), weights(0))
    run("fit", *few, *given, "--seed_everything", "1")
    assert metrics(4) != metrics(0)


@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(run, tmp_path):
    words = [*SMALL, *BOUNDS, "--trainer.max_epochs", "3", "--model.dropout", "0.1"]
    run("fit", *words)
    command = [sys.executable, "-m", "customresnet", "fit", *words]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if line.startswith("epoch 2/3"):
            break
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    interrupted = FOLDER / "version_1"
    assert not (interrupted / "result.json").exists()
    done = torch.load(interrupted / "checkpoints/last.ckpt", weights_only=True)["epoch"] + 1
    assert done in (1, 2)
    outcome = run("fit", "--config", "demo", "--ckpt_path", "last")
    assert outcome.code == 0, outcome.err
    assert not (FOLDER / "version_2").exists()
    assert equal(weights(1), weights(0))
    assert metrics(1) == metrics(0)
    assert "LR range test" not in outcome.out
    result, whole = read_json(interrupted / "result.json"), read_json(FOLDER / "version_0/result.json")
    assert result["test/acc"] == whole["test/acc"]
    assert result["steps"] == 36
    refused = run("fit", "--config", "demo", "--ckpt_path", "last")  # it has finished now
    assert refused.code == 2
    assert "no unfinished run" in refused.err


@pytest.mark.parametrize("engine", ["albumentations", "batch"])
def test_a_run_resumed_within_an_epoch_equals_an_uninterrupted_one(tmp_path, engine):
    def fit(ckpt_path: str | None = None, *callbacks: pl.Callback) -> tuple[dict[str, torch.Tensor], list[float]]:
        data = CIFAR10DataModule(source="digits", batch_size=128, seed=0, engine=engine)
        model = ImageClassifier(width=4, dropout=0.1, lr_max=3e-3, lr_min=1e-4)
        options = {"max_epochs": 2, "logger": False, "enable_progress_bar": False, "default_root_dir": str(tmp_path)}
        result = customresnet.fit(model, data, Trainer(callbacks=list(callbacks), **options), ckpt_path=ckpt_path)
        assert result is not None
        return model.state_dict(), [result["train/loss"], result["train/acc"], result["test/loss"]]

    save = ModelCheckpoint(tmp_path, filename="middle", every_n_train_steps=17, save_top_k=-1)
    torch.manual_seed(0)
    whole, metrics = fit(None, save)
    middle = torch.load(tmp_path / "middle.ckpt", weights_only=True)
    assert middle["global_step"] == 17  # batch 5 of 12 in the second epoch
    torch.manual_seed(1)
    resumed, resumed_metrics = fit(str(tmp_path / "middle.ckpt"))
    assert equal(resumed, whole)
    assert resumed_metrics == metrics  # over the whole epoch, not the part after the resume


def test_a_resumed_triangular_policy_equals_an_uninterrupted_one(run):
    words = [*SMALL, *BOUNDS, "--model.policy", "triangular", "--model.cycle_mode", "exp_range"]
    run("fit", *words)
    run("fit", *words, "--trainer.callbacks", "tests.conftest.StopAfterOneEpoch")
    outcome = run("fit", "--ckpt_path", "lightning_logs/demo/version_1", "--trainer.callbacks", "[]")
    assert outcome.code == 0, outcome.err
    whole, resumed = (read_json(FOLDER / f"version_{n}/result.json") for n in (0, 1))
    assert whole["test/loss"] == resumed["test/loss"]
    assert equal(weights(1), weights(0))


TWO_PROCESSES = """
import pytorch_lightning as pl
import torch

import customresnet
from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.training.callbacks import progress

progress.interactive = lambda: True  # draw the progress bar, as in a terminal


class BatchRecorder(pl.Callback):
    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        self.batches.append((trainer.current_epoch, batch[0].clone()))

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        if trainer.is_global_zero:
            trainer.progress_bar_callback.train_progress_bar.last_print_t = 0  # redraw after every step

    def on_train_end(self, trainer, model):
        torch.save(self.batches, f"batches{trainer.global_rank}.pt")


options = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "precision": "32-true"}
data = CIFAR10DataModule(source="digits", batch_size=128, seed=0, engine="batch")
model = ImageClassifier(width=4, lr_max=3e-3, lr_min=1e-4)
customresnet.fit(model, data, Trainer(max_epochs=2, callbacks=[BatchRecorder()], **options), report=False)
"""


@pytest.mark.slow
def test_two_processes_train_on_and_count_the_same_images_as_one(tmp_path, monkeypatch):
    """Each image once an epoch, augmented as in one process; one image twice, so that both get as many."""
    script = tmp_path / "fit.py"
    script.write_text(TWO_PROCESSES)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run([sys.executable, script], **options)
    assert done.returncode == 0, done.stderr[-2000:]
    processes = [torch.load(tmp_path / f"batches{rank}.pt") for rank in range(2)]
    alone = CIFAR10DataModule(source="digits", batch_size=128, seed=0, engine="batch")
    alone.setup("fit")
    loader = alone.train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        expected = Counter(image.numpy().tobytes() for images, _ in loader for image in images)
        seen = [[image.numpy().tobytes() for e, images in own if e == epoch for image in images] for own in processes]
        assert len(seen[0]) == len(seen[1]) == 719  # of 1,437
        both = Counter(seen[0] + seen[1])
        assert both.keys() == expected.keys()
        assert (both - expected).total() == 1
    monkeypatch.chdir(tmp_path)
    result = read_json(Path("lightning_logs/customresnet/version_0/result.json"))
    trainer = Trainer(precision="32-true", enable_progress_bar=False, logger=False)
    evaluated = evaluate.test(ImageClassifier(width=4), alone, trainer, ckpt_path="last")
    assert result["test/images"] == 360
    assert result["test/correct"] == evaluated["test/correct"]
    assert result["test/loss"] == pytest.approx(evaluated["test/loss"], rel=1e-5)


def make_unfinished_run(run) -> None:
    run("fit", *SMALL, *BOUNDS)
    (FOLDER / "version_0/result.json").unlink()


def test_a_resumed_run_refuses_another_length(run):
    make_unfinished_run(run)
    outcome = run("fit", "--ckpt_path", str(FOLDER / "version_0"), "--trainer.max_epochs", "5")
    assert outcome.code == 2
    assert "the checkpoint's schedule is 24 steps long, this run's 60" in outcome.err
    assert "--trainer.max_epochs" in outcome.err


def test_a_resumed_run_refuses_another_schedule(run):
    make_unfinished_run(run)
    outcome = run("fit", "--ckpt_path", str(FOLDER / "version_0"), "--model.lr_max", "0.1")
    assert outcome.code == 2
    assert "--model.lr_max: received 0.1, but the checkpoint was trained with 0.003" in outcome.err


@pytest.mark.slow
def test_ctrl_c_keeps_finished_epochs_and_says_how_to_resume(tmp_path):
    words = [*SMALL, *BOUNDS, "--trainer.max_epochs", "200"]
    command = [sys.executable, "-m", "customresnet", "fit", *words]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in child.stdout:
        if line.startswith("epoch   1/200"):
            break
    time.sleep(0.2)
    out, err = interrupt(child)
    assert child.returncode == 1
    assert "are kept; resume with: fit --ckpt_path" in out
    assert "Traceback" not in err.split("Exception ignored")[0]
    assert (tmp_path / FOLDER / "version_0/checkpoints/last.ckpt").exists()


def test_a_resume_within_an_epoch_of_several_processes_marks_that_epochs_metrics(tmp_path, capsys):
    options = {"max_epochs": 1, "logger": False, "enable_progress_bar": False, "default_root_dir": str(tmp_path)}
    save = ModelCheckpoint(tmp_path, filename="middle", every_n_train_steps=5, save_top_k=-1)

    def fit(ckpt_path: str | None = None, *callbacks: pl.Callback) -> str:
        data = CIFAR10DataModule(source="digits", batch_size=128, train_size=768, seed=0)
        model = ImageClassifier(width=4, lr_max=3e-3, lr_min=1e-4)
        customresnet.fit(model, data, Trainer(callbacks=list(callbacks), **options), ckpt_path=ckpt_path)
        return capsys.readouterr().out

    note = "note: the first epoch's training metrics cover only its part after the resume"
    fit(None, save)
    path = tmp_path / "middle.ckpt"
    assert note not in fit(str(path))
    checkpoint = torch.load(path, weights_only=True)
    torch.save({**checkpoint, "epoch_metrics": {}}, path)  # as several processes save it
    assert note in fit(str(path))
