"""The commands as a user meets them: what they write, and how they answer mistakes."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.cli import main as cli
from customresnet.cli import recipes
from customresnet.cli.plain import PLAIN_COMMANDS
from customresnet.data.transforms.policy import CIFAR10_MEAN
from tests.conftest import BOUNDS, SMALL, make_tree, read_json

PRESETS = sorted(p.stem for p in recipes.PRESETS.glob("*.yaml"))


def one_line(outcome, *parts: str) -> None:
    """The command failed with exit code 2, in one or two lines without a traceback, and said these things."""
    assert outcome.code == 2
    lines = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert len(outcome.err.strip().splitlines()) <= 2
    for part in parts:
        assert part in lines[0]


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["subcommand", "fit"]),
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
        (["fit", *SMALL, "--seed_everything", "-1"], ["--seed_everything -1"]),
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
        (["test"], ["test needs --ckpt_path"]),
        (["predict", "--images", "x.png"], ["predict needs --ckpt_path"]),
        (["test", "--ckpt_path", "nowhere.ckpt"], ["--ckpt_path nowhere.ckpt: no such checkpoint"]),
        (["test", "--ckpt_path", "last"], ["--ckpt_path last: no run with a checkpoint", "customresnet"]),
        (["fit", "--config", "demo", "--ckpt_path", "last"], ["--ckpt_path last: no unfinished run", "demo"]),
        (["fit", *SMALL, *BOUNDS, "--trainer.default_root_dir", "a_file/x"], ["cannot write", "a_file/x"]),
        (["schedule", "--trainer.default_root_dir", "a_file/x"], ["cannot write", "a_file/x"]),
        (["fit", *SMALL, "--trainer.accelerator", "cpu", "--trainer.devices", "2"], ["one device; received 2"]),
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
def test_a_mistake_is_answered_in_one_line_that_names_its_flag(run, words, parts):
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
def test_a_bad_checkpoint_is_named(run, small_run, make, message, command):
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
def test_what_contradicts_the_checkpoint_is_refused_naming_both(run, small_run, words, parts):
    make_tree(Path("tree"), each=20)
    one_line(run("test", "--ckpt_path", str(small_run), *words), *parts)


def test_debug_shows_the_traceback(run):
    with pytest.raises(cli.UserError, match="no such preset"):
        run("--debug", "fit", "--config", "nope")


# Real processes: what only the whole program shows.


def process(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "customresnet", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_fit_without_network_and_data_ends_in_one_line(tmp_path):
    blocked = {**os.environ, "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "customresnet", "fit"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=blocked)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "--data.source folder" in done.stderr
    assert "make demo" in done.stderr


def test_help_lists_every_command_with_a_line_and_starts_fast(tmp_path):
    def cost(*command: str) -> tuple[float, str]:
        """Seconds of computing, which other work does not lengthen as it does those on the clock, and the output."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout

    ours, shown = cost(sys.executable, "-m", "customresnet", "--help")
    for command in (*cli.CLI.subcommands(), *PLAIN_COMMANDS):
        assert re.search(rf"^    {command} +\w", shown, re.M), command
    assert ours < 1.3 * cost(sys.executable, "-c", "import pytorch_lightning.cli")[0]


@pytest.mark.parametrize(
    ("words", "collected"), [(["--help"], 0), (["schedule", "--help"], 1), ([], len(cli.CLI.subcommands()))]
)
def test_only_the_flags_that_are_asked_for_are_collected(run, monkeypatch, words, collected):
    collect, calls = cli.CLI._add_arguments, []
    monkeypatch.setattr(cli.CLI, "_add_arguments", lambda *args: calls.append(args) or collect(*args))
    run(*words)
    assert len(calls) == collected


def test_a_command_may_be_named_in_a_file(run):
    fit = {"data": {"source": "digits"}, "model": {"width": 8}, "trainer": {"fast_dev_run": 1}}
    Path("file.yaml").write_text(json.dumps({"fit": fit}))
    outcome = run("--config", "file.yaml")
    assert outcome.code == 0, outcome.err
    assert "fast_dev_run: no LR range test" in outcome.out


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    command = [sys.executable, "-m", "customresnet", "summary"]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.close()
    assert child.stderr.read() == ""
    assert child.wait() == 1


def test_importing_the_package_is_light(tmp_path):
    code = "import sys, customresnet; assert not {'torch', 'pytorch_lightning', 'albumentations'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


# ------------------------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_the_flags(run, name):
    outcome = run("fit", "--config", name, "--print_config")
    assert outcome.code == 0
    assert yaml.safe_load(outcome.out)["trainer"]["run_name"] == name


def test_the_demos_recipe_speaks_to_each_command_of_what_it_knows(run):
    for command in ("validate", "test", "lr-find", "lr-sweep", "schedule"):
        outcome = run(command, "--config", "demo", "--print_config")
        assert outcome.code == 0, outcome.err
        assert yaml.safe_load(outcome.out).get("spacing") == ("log" if command == "lr-sweep" else None)


@pytest.mark.parametrize("command", PLAIN_COMMANDS)
def test_a_command_without_a_trainer_explains_its_flags(run, command):
    outcome = run(command, "--help")
    assert outcome.code == 0
    assert PLAIN_COMMANDS[command].help in outcome.out
    assert not re.search(r"^  --(?!help|print|config)[\w.]+ [A-Z_]+\n(?!  +\S)", outcome.out, re.M)


def test_a_run_leaves_one_folder_with_everything(small_run):
    left = {p.relative_to(small_run).as_posix() for p in small_run.rglob("*") if p.is_file()}
    assert left >= {"config.yaml", "metrics.csv", "result.json", "lr_find.json", "lr_find.png", "checkpoints/last.ckpt"}
    found, result = read_json(small_run / "lr_find.json"), read_json(small_run / "result.json")
    config = yaml.safe_load((small_run / "config.yaml").read_text())
    assert {"lrs", "losses", "smoothed", "candidates", "lr_max", "lr_min"} == set(found)
    assert set(found["candidates"]) == {"steepest", "valley", "minimum/10"}
    for place in (config["model"], result):
        assert (place["lr_max"], place["lr_min"]) == (found["lr_max"], found["lr_min"])
    assert result["test/correct"] == round(result["test/acc"] * 360)
    assert result["epochs"] == 2
    assert result["parameters"] == sum(p.numel() for p in ImageClassifier(width=8).net.parameters())


def test_tensorboard_holds_every_curve_and_picture(small_run):
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


def test_validate_and_test_agree_with_the_runs_own_end(run, small_run):
    result = read_json(small_run / "result.json")
    for command in ("test", "validate"):
        outcome = run(command, "--ckpt_path", str(small_run))
        assert f"{result['test/correct']}/360" in outcome.out
        assert outcome.err == ""
        assert read_json(small_run / f"{command}.json")["test/loss"] == pytest.approx(result["test/loss"], rel=1e-5)


def test_constants_of_its_training_go_with_a_checkpoint(run):
    half = ["--data.mean", "[0.5, 0.5, 0.5]", "--data.std", "[0.5, 0.5, 0.5]"]
    assert run("fit", *SMALL, *BOUNDS, *half).code == 0
    folder = Path("lightning_logs/demo/version_0")
    result = read_json(folder / "result.json")
    outcome = run("test", "--config", "demo", "--ckpt_path", "last")
    assert outcome.code == 0
    assert read_json(folder / "test.json")["test/acc"] == result["test/acc"]
    one_line(run("test", "--ckpt_path", str(folder), "--data.mean", str(list(CIFAR10_MEAN))), "--data.mean", "[0.5")
    # ... also when the checkpoint has left its run's folder
    shutil.copy(folder / "checkpoints/last.ckpt", "alone.ckpt")
    assert run("test", "--ckpt_path", "alone.ckpt").code == 0
    assert read_json(Path("test.json"))["test/acc"] == result["test/acc"]


def test_a_held_out_set_is_watched_and_the_test_set_looked_at_once(run):
    outcome = run("fit", *SMALL, *BOUNDS, "--data.val_size", "100")
    folder = Path("lightning_logs/demo/version_0")
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert header == ["epoch", "step", "lr", "train/acc", "train/loss", "val/acc", "val/loss"]
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    result = read_json(folder / "result.json")
    assert f"{result['test/correct']}/360" in outcome.out
    assert run("validate", "--ckpt_path", str(folder)).code == 0
    assert read_json(folder / "validate.json")["val/acc"] == result["val/acc"]


def test_the_best_checkpoint_is_the_best_also_when_the_run_was_resumed(run):
    run("fit", *SMALL, *BOUNDS, "--data.val_size", "100", "--trainer.max_epochs", "3")
    folder = Path("lightning_logs/demo/version_0")
    os.unlink(folder / "result.json")  # as if it had been killed just before its end
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


class Worsening(pl.Callback):
    """Epoch 2 is killed, or forgets all that was learned before it is evaluated."""

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
        trainer = Trainer(max_epochs=2, callbacks=[Worsening(killed)], **options)
        data = CIFAR10DataModule(source="digits", batch_size=128, val_size=200, seed=0)
        trainer.fit(ImageClassifier(width=4, lr_max=1e-2, lr_min=1e-2), data, ckpt_path=ckpt_path)
        return Path(trainer.log_dir) / "checkpoints"

    with pytest.raises(RuntimeError, match="killed"):
        fit(killed=True)
    checkpoints = fit(killed=False, ckpt_path="last")
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["epoch"] == 1
    assert torch.load(checkpoints / "best.ckpt", weights_only=True)["epoch"] == 0


def test_a_run_that_stops_between_evaluations_is_evaluated_at_its_end(run):
    outcome = run("fit", *SMALL, *BOUNDS, "--trainer.max_steps", "20", "--trainer.max_epochs", "9")
    assert outcome.code == 0
    folder = Path("lightning_logs/demo/version_0")
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert rows[0] == "epoch,step,lr,test/acc,test/loss,train/acc,train/loss"
    first, last = (row.split(",") for row in rows[1:])
    assert (last[1], last[3]) == ("20", "")  # not the first epoch's figure once more
    result = read_json(folder / "result.json")
    assert result["steps"] == 20
    assert run("test", "--ckpt_path", str(folder)).code == 0
    tested = read_json(folder / "test.json")
    assert result["test/loss"] != pytest.approx(float(first[4]))
    assert result["test/correct"] == tested["test/correct"]


def test_evaluation_can_be_limited_or_left_out(run):
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


def test_two_processes_share_the_work_and_one_folder(tmp_path):
    words = [
        "fit",
        *SMALL,
        *BOUNDS,
        "--trainer.accelerator",
        "cpu",
        "--trainer.devices",
        "2",
        "--trainer.strategy",
        "ddp",
    ]
    done = process(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = tmp_path / "lightning_logs/demo"
    assert [p.name for p in runs.iterdir()] == ["version_0"]
    result = read_json(runs / "version_0/result.json")
    assert result["test/images"] == 360
    assert result["steps"] == 12  # 2 epochs of 1,437 images, 2 x 128 a step
    assert f"{result['test/correct']}/360" in done.stdout


def test_a_finished_run_is_not_gone_on_with(run, small_run):
    one_line(run("fit", "--ckpt_path", str(small_run)), "this run is finished", "result.json")


def test_predict_names_the_class_of_pictures_of_any_size(run, small_run):
    from PIL import Image
    from sklearn.datasets import load_digits

    os.mkdir("pictures")
    digits = load_digits()
    for number in range(10):
        picture = Image.fromarray((digits.images[number] * 15.9).astype("uint8"))
        picture.resize((48, 32) if number == 0 else (32, 32), Image.Resampling.BICUBIC).save(f"pictures/{number}.png")
    outcome = run("predict", "--ckpt_path", str(small_run), "--images", "pictures", "--top_k", "2")
    assert outcome.code == 0
    rows = read_json(small_run / "predictions.json")
    assert [row["image"] for row in rows] == [f"pictures/{n}.png" for n in range(10)]
    assert all(len(row["top"]) == 2 and row["top"][0]["probability"] >= row["top"][1]["probability"] for row in rows)
    assert "from 48x32, resized and centre-cropped to 32x32" in outcome.out
    assert outcome.out.count("resized") == 1
    one_line(run("predict", "--ckpt_path", str(small_run), "--images", "nope.png"), "--images nope.png")
    half = ["--data.mean", "[0.5, 0.5, 0.5]"]
    one_line(run("predict", "--ckpt_path", str(small_run), "--images", "pictures", *half), "--data.mean", "[0.4914")
    Path("text.png").write_text("x")
    one_line(
        run("predict", "--ckpt_path", str(small_run), "--images", "pictures/0.png", "text.png"),
        "cannot read the image text.png",
    )


def test_fast_dev_run_says_what_it_leaves_out(run):
    outcome = run("fit", *SMALL, "--trainer.fast_dev_run", "true")
    assert outcome.code == 0
    assert "fast_dev_run: no LR range test, constant LR 0.001" in outcome.out
    assert not Path("lightning_logs").exists()


def test_lr_find_alone_writes_its_curve_and_leaves_nothing_else(run):
    outcome = run("lr-find", *SMALL, "--lr_find.steps", "30")
    assert outcome.code == 0
    folder = Path("lightning_logs/demo/version_0")
    assert {p.name for p in folder.iterdir() if "tfevents" not in p.name} == {"lr_find.json", "lr_find.png"}
    found = read_json(folder / "lr_find.json")
    assert f"--model.lr_max {found['lr_max']:.3g} --model.lr_min {found['lr_min']:.3g}" in outcome.out
    assert not [p for p in Path().rglob(".lr_find*")]
