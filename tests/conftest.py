"""Shared helpers: run a command in an empty folder, on small data made here or bundled with scikit-learn."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: the tests occupy all cores already

import pytorch_lightning as pl

from customresnet.cli import main as cli

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in a shell's background job; child processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SMALL = ["--config", "demo", "--model.width", "8", "--data.batch_size", "128", "--trainer.max_epochs", "2"]
"""A fit on the digits that takes seconds."""
BOUNDS = ["--model.lr_max", "3e-3", "--model.lr_min", "1e-4"]


@dataclass
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run commands in this process, in an empty folder. A fit writes no report unless told to: that takes seconds."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> Outcome:
        capsys.readouterr()
        if words[:1] == ("fit",) and "--report" not in words:
            words = (*words, "--report", "false")
        try:
            cli.main(list(words))
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return command


def one_line(outcome: Outcome, *parts: str) -> None:
    """Assert that a command failed with exit code 2 and one line of error that contains these parts."""
    assert outcome.code == 2
    lines = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert len(outcome.err.strip().splitlines()) <= 2
    for part in parts:
        assert part in lines[0]


class StopAfterOneEpoch(pl.Callback):
    """Interrupt a run, as Ctrl-C does, when its second epoch starts."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on the digits, with learning rates from the LR range test."""
    return train(tmp_path_factory.mktemp("small_run"), "--lr_find.steps", "40")


def train(root: Path, *words: str) -> Path:
    """Train on the digits for seconds with these flags; return the run's folder."""
    cli.main(["fit", *SMALL, *words, "--report", "false", "--trainer.default_root_dir", str(root)])
    return root / "lightning_logs" / "demo" / "version_0"


def interrupt(child: subprocess.Popen) -> tuple[str, str]:
    """Send Ctrl-C, several times if necessary: Python ignores one that arrives while it deletes an object."""
    for _ in range(5):
        child.send_signal(signal.SIGINT)
        try:
            return child.communicate(timeout=8)
        except subprocess.TimeoutExpired:
            pass
    raise AssertionError("the process ignored five interrupts")


def make_tree(
    root: Path,
    *,
    splits: tuple[str, ...] = ("train", "test"),
    classes: tuple[str, ...] = ("cat", "dog", "owl"),
    each: int = 4,
    size: int = 32,
) -> Path:
    """Write images <split>/<class>/*.png of random pixels; return their folder."""
    pixels = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(each):
                image = pixels.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(image).save(folder / f"{number}.png")
    return root


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())
