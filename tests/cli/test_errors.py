"""Mistakes on the command line: exit code 2 and one line that names the flag, without a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from customresnet.runtime.errors import UserError
from tests.conftest import BOUNDS, SMALL, make_tree, one_line


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["the first word must be a command", "fit"]),
        (["fti"], ["fti", "fit", "lr-find"]),
        (["fit", "--config", "nope"], ["--config nope", "no such preset or file", "demo"]),
        (["fit", "--config", "nope.yaml"], ["--config nope.yaml: no such file"]),
        (["fit", "--data.nope", "3"], ["--data.nope"]),
        (
            ["fit", "--data.source", "nope"],
            ["--data.source", "'cifar10', 'cifar100', 'folder', 'digits'", "received nope"],
        ),
        (["fit", "--data.batch_size", "many"], ["--data.batch_size", "int", "received many"]),
        (["fit", "--model.network", "nope"], ["--model.network", "custom_resnet", "received nope"]),
        (["fit", "--trainer.callbacks", "nope.Nope"], ["--trainer.callbacks", "received nope.Nope"]),
        (["fit", "--config", "demo", "--data.batch_size", "0"], ["--data.batch_size", "received 0"]),
        (["fit", "--config", "demo", "--data.batch_size", "2000"], ["--data.batch_size 2000 is larger than the 1437"]),
        (["fit", "--config", "demo", "--data.val_size", "1437"], ["--data.val_size 1437 does not fit"]),
        (["fit", "--model.lr_max", "1e-5", "--model.lr_min", "1e-2"], ["--model.lr_max 1e-05 is below --model.lr_min"]),
        (["fit", "--model.lr_max", "-1"], ["--model.lr_max must be positive; received -1"]),
        (["fit", "--model.peak_epoch", "0"], ["--model.peak_epoch must be positive; received 0"]),
        (["fit", *SMALL, *BOUNDS, "--model.peak_epoch", "3"], ["--model.peak_epoch 3 is beyond the run of 2 epochs"]),
        (["fit", *SMALL, *BOUNDS, "--trainer.max_epochs", "-1"], ["pass --trainer.max_epochs"]),
        (["fit", "--trainer.precision", "nope"], ["--trainer", "precision", "nope"]),
        (["fit", "--trainer.accelerator", "nope"], ["--trainer", "accelerator", "nope"]),
        (["fit", "--trainer.max_epochs", "-5"], ["--trainer", "max_epochs", "-5"]),
        (["fit", *SMALL, "--trainer.max_epochs", "0"], ["nothing to train", "--trainer.max_epochs"]),
        (["fit", *SMALL, "--trainer.limit_train_batches", "0.01"], ["--trainer", "limit_train_batches"]),
        (["fit", *SMALL, *BOUNDS, "--trainer.val_check_interval", "1000"], ["--trainer", "val_check_interval", "1000"]),
        (["fit", *SMALL, "--trainer.overfit_batches", "2"], ["--trainer.overfit_batches", "limit_train_batches"]),
        (["fit", *SMALL, "--data.seed", "-1"], ["--data.seed must be at least 0; received -1"]),
        (["fit", *SMALL, "--seed_everything", "-1"], ["--seed_everything must be from 0 to 4294967295; received -1"]),
        (
            ["fit", *SMALL, "--model.peak_epoch", "2", "--trainer.max_steps", "12"],
            ["--model.peak_epoch 2 is beyond", "1 epochs"],
        ),
        (["fit", "--model.dropout", "1"], ["--model.dropout", "received 1"]),
        (["fit", "--model.momentum", "[0.95, 0.85]"], ["--model.momentum", "[0.95, 0.85]"]),
        (["fit", *SMALL, "--lr_find.steps", "5"], ["--lr_find.steps must be at least 10; received 5"]),
        (["lr-find", *SMALL, "--lr_find.min", "2"], ["--lr_find.min", "received 2 and 1"]),
        (["fit", *SMALL, "--lr_find.min", "10", "--lr_find.max", "1000"], ["LR range test", "--model.lr_max"]),
        (["fit", "--data.source", "folder"], ["--data.source folder needs --data.root"]),
        (["fit", "--data.source", "folder", "--data.root", "nowhere"], ["--data.root nowhere does not exist"]),
        (["lr-sweep", *SMALL, "--lr_find.steps", "30"], ["this command has no --lr_find"]),
        (["test"], ["test needs --ckpt_path"]),
        (["predict", "--images", "x.png"], ["predict needs --ckpt_path"]),
        (["predict", "--ckpt_path", "pretrained"], ["predict needs --images"]),
        (["report"], ["--ckpt_path is required"]),
        (["test", "--ckpt_path", "nowhere.ckpt"], ["--ckpt_path nowhere.ckpt: no such checkpoint"]),
        (["test", "--ckpt_path", "last"], ["--ckpt_path last: no run with a checkpoint", "customresnet"]),
        (["fit", "--config", "demo", "--ckpt_path", "last"], ["--ckpt_path last: no unfinished run", "demo"]),
        (["fit", *SMALL, *BOUNDS, "--trainer.default_root_dir", "a_file/x"], ["cannot write", "a_file/x"]),
        (["schedule", "--trainer.default_root_dir", "a_file/x"], ["cannot write", "a_file/x"]),
        (
            ["fit", *SMALL, "--checkpoint_every_n_steps", "0"],
            ["--checkpoint_every_n_steps must be positive; received 0"],
        ),
        (
            ["fit", *SMALL, "--checkpoint_every_minutes=-1"],
            ["--checkpoint_every_minutes must be positive; received -1"],
        ),
        (["lr-find", *SMALL, "--trainer.accelerator", "cpu", "--trainer.devices", "2"], ["one device; received 2"]),
        (["schedule", "--model.policy", "nope"], ["--model.policy", "'one_cycle', 'triangular'", "received nope"]),
        (
            ["schedule", "--model.half_cycle", "2"],
            ["--model.half_cycle 2.0 belongs to --model.policy triangular; received --model.policy one_cycle"],
        ),
        (
            ["fit", "--model.policy", "triangular", "--model.anneal", "cos"],
            ["--model.anneal cos belongs to --model.policy one_cycle; received --model.policy triangular"],
        ),
        (
            ["schedule", "--config", "demo", "--model.policy", "triangular", "--model.half_cycle", "9"],
            ["--model.half_cycle 9 is beyond the run of 8 epochs", "LRMAX would never be reached"],
        ),
        (
            ["schedule", "--model.final_div_factor", "0.5"],
            ["--model.final_div_factor must be at least 1; received 0.5"],
        ),
        (
            ["fit", "--model.policy", "triangular", "--model.cycle_gamma", "1.1"],
            ["--model.cycle_gamma", "received 1.1"],
        ),
        (["schedule", "--config", "demo", "--trainer.limit_train_batches", "0"], ["limit_train_batches 0 leaves no"]),
        (["fit", *SMALL, "--trainer.limit_train_batches", "0"], ["limit_train_batches 0 leaves no"]),
        (
            ["schedule", "--config", "demo", "--data.batch_size", "2000"],
            ["--data.batch_size 2000 is larger than the 1437"],
        ),
        (["lr-find", *SMALL, "--update", "folder.yaml"], ["--update folder.yaml cannot be written"]),
        (["schedule", "--steps_per_epoch", "0"], ["--steps_per_epoch must be at least 1; received 0"]),
        (["schedule", "--data.source", "folder", "--data.root", "nowhere"], ["--data.root nowhere does not exist"]),
        (["schedule", "--config", "demo", "--data.val_size", "5000"], ["--data.val_size 5000 does not fit the 1437"]),
        (["lr-find", *SMALL, "--repeat", "0"], ["--repeat must be at least 1; received 0"]),
        (["lr-find", *SMALL, "--update", "bounds.txt"], ["--update bounds.txt must be a .yaml file"]),
        (["lr-find", *SMALL, "--update", "no/bounds.yaml"], ["--update no/bounds.yaml: there is no folder no"]),
        (["lr-sweep", *SMALL, "--start", "1", "--end", "0.1"], ["--start must be below --end; received 1 and 0.1"]),
        (["lr-sweep", *SMALL, "--start", "0"], ["--start is a learning rate and must be positive; received 0"]),
        (
            ["lr-sweep", "--data.source", "digits", "--spacing", "log", "--start", "-1"],
            ["--start", "must be positive; received -1"],
        ),
        (["lr-sweep", *SMALL, "--points", "1"], ["--points must be at least 2; received 1"]),
        (["lr-sweep", *SMALL, "--steps", "0"], ["--steps must be at least 1; received 0"]),
        (["lr-sweep", *SMALL, "--epochs", "0"], ["--epochs must be positive; received 0"]),
        (["lr-sweep", *SMALL, "--parallel", "0"], ["--parallel must be at least 1; received 0"]),
        (["lr-sweep", *SMALL, "--spacing", "cubic"], ["--spacing", "'linear', 'log'", "received cubic"]),
        (["lr-sweep", *SMALL, "--resume"], ["--resume: there is no LR sweep in", "demo", "without --resume"]),
    ],
)
def test_a_wrong_flag_is_reported_in_one_line(run, words, parts):
    Path("a_file").touch()
    Path("folder.yaml").mkdir()
    one_line(run(*words), *parts)
    assert not list(Path().rglob("*.ckpt"))


def truncated(checkpoint: Path, path: Path) -> None:
    path.write_bytes(checkpoint.read_bytes()[:5000])


def not_a_checkpoint(checkpoint: Path, path: Path) -> None:
    path.write_text("hello")


def of_another_project(checkpoint: Path, path: Path) -> None:
    torch.save({"state_dict": {}}, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, "is truncated or not a checkpoint"),
        (not_a_checkpoint, "is truncated or not a checkpoint"),
        (of_another_project, "is not a checkpoint of this project"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_damaged_checkpoint_is_refused(run, small_run, make, message, command):
    make(small_run / "checkpoints/last.ckpt", Path("bad.ckpt"))
    one_line(run(command, "--config", "demo", "--ckpt_path", "bad.ckpt"), "--ckpt_path bad.ckpt", message)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--model.width", "16"], ["--model.width: received 16, but the checkpoint was trained with 8"]),
        (["--data.mean", "[0.5, 0.5, 0.5]"], ["--data.mean: received [0.5, 0.5, 0.5]", "trained with [0.4914"]),
        (["--data.std", "[0.5, 0.5, 0.5]"], ["--data.std: received [0.5, 0.5, 0.5]", "trained with [0.247"]),
        (["--data.image_size", "40"], ["--data.image_size: received 40", "trained with 32"]),
        (
            ["--data.source", "folder", "--data.root", "tree"],
            ["the classes of --data.source folder: received ['cat'", "['0', '1'"],
        ),
    ],
)
def test_flags_that_contradict_the_checkpoint_are_refused_with_both_values(run, small_run, words, parts):
    make_tree(Path("tree"), each=20)
    one_line(run("test", "--ckpt_path", str(small_run), *words), *parts)


def test_debug_shows_the_traceback(run):
    with pytest.raises(UserError, match="no such preset"):
        run("--debug", "fit", "--config", "nope")


@pytest.mark.slow
def test_fit_without_images_and_network_access_ends_in_one_line(tmp_path):
    blocked = {**os.environ, "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "customresnet", "fit"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=blocked)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "--data.source folder" in done.stderr
    assert "make demo" in done.stderr


@pytest.mark.parametrize("words", [["summary"], ["schedule", "--config", "demo"]])
def test_a_closed_pipe_is_no_error(tmp_path, words):
    """As in ``customresnet summary | head -1``."""
    command = [sys.executable, "-m", "customresnet", *words]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.close()
    assert child.stderr.read() == ""
    assert child.wait() == 1
