"""The lr-sweep command: what it writes, and how it is interrupted, killed and resumed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from customresnet.commands import lr_sweep
from customresnet.training.lr.sweep_result import LRPoint
from tests.conftest import SMALL, interrupt, read_json

WORDS = [*SMALL, "--points", "5", "--steps", "4", "--start", "1e-4", "--end", "1e-1"]
FOLDER = Path("lightning_logs/demo")


def sweep_json(version: int) -> dict:
    return read_json(FOLDER / f"version_{version}/lr_sweep.json")


@pytest.mark.slow
def test_a_killed_and_resumed_sweep_equals_an_uninterrupted_one(run, tmp_path):
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
    assert "--points: received 6, but the sweep was started with 5" in outcome.err
    assert "--data.batch_size: received 64, but the sweep was started with 128" in outcome.err
    assert "--data.train_size: received 500, but the sweep was started with None" in outcome.err
    outcome = run("lr-sweep", *WORDS, "--resume")
    assert outcome.code == 0, outcome.err
    assert f"{measured} of 5 points are measured" in outcome.out
    assert len(re.findall("^point ", outcome.out, re.M)) == 5 - measured
    assert sweep_json(1) == sweep_json(0)
    assert not (FOLDER / "version_2").exists()
    outcome = run("lr-sweep", *WORDS, "--resume")
    assert outcome.code == 2
    assert "every LR sweep is finished" in outcome.err


def test_writes_points_suggestion_and_figure(run):
    outcome = run("lr-sweep", *WORDS, "--data.val_size", "100", "--points", "3")
    assert outcome.code == 0, outcome.err
    result = sweep_json(0)
    assert result["steps"] == 4
    # the demo's spacing is log
    assert [point["lr"] for point in result["points"]] == pytest.approx([1e-4, 3.162e-3, 1e-1], rel=1e-3)
    best = max(result["points"], key=lambda point: point["val_acc"])
    assert (result["lr_max"], result["lr_min"]) == pytest.approx((best["lr"], best["lr"] / 10))
    assert (FOLDER / "version_0/lr_sweep.png").read_bytes().startswith(b"\x89PNG")
    assert f"--model.lr_max {best['lr']:.3g}" in outcome.out
    assert not list(Path().rglob("*.ckpt"))


def test_epochs_or_steps_set_the_length_of_a_point(run, monkeypatch):
    lengths = []

    def measure(lrs, model, datamodule, steps, *_):
        lengths.append(steps)
        yield from (LRPoint(lr, 0.1, 2.3, None, 128) for lr in lrs)

    monkeypatch.setattr(lr_sweep, "measure_points", measure)
    for words in ([], ["--epochs", "0.5"], ["--steps", "30"], ["--trainer.accumulate_grad_batches", "4"]):
        run("lr-sweep", *SMALL, "--points", "2", *words)
    assert lengths == [12, 6, 30, 3]


@pytest.mark.slow
def test_ctrl_c_keeps_measured_points_and_says_how_to_resume(tmp_path):
    command = [sys.executable, "-m", "customresnet", "lr-sweep", *WORDS, "--points", "200"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen(command, cwd=tmp_path, **pipes)
    for line in child.stdout:
        if line.startswith("point   2/200"):
            break
    out, err = interrupt(child)
    assert child.returncode == 1
    measured = len(read_json(tmp_path / FOLDER / "version_0/lr_sweep.json")["points"])
    assert f"interrupted: {measured} of 200 points are kept; continue with --resume" in out, err
