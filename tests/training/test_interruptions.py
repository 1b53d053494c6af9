"""What becomes of a run that is interrupted, terminated, or whose loss or disk goes wrong."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import customresnet
from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.runs import durable
from customresnet.runs.durable import previous
from customresnet.runtime.errors import UnsavedError
from tests.conftest import BOUNDS, SMALL, read_json

RUN = Path("lightning_logs/demo/version_0")
TINY = [*SMALL, *BOUNDS, "--model.width", "4", "--data.train_size", "600"]
"""Two epochs of five steps."""


class Terminate(pl.Callback):
    """Send SIGTERM to this process during a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch * trainer.num_training_batches + batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGTERM)


class Raise(pl.Callback):
    """Fail at the start of a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.batch:
            raise KeyboardInterrupt


def fit(root: Path, *callbacks: pl.Callback, epochs: int = 2, max_time: Any = None, **options: Any) -> Any:
    """Train epochs of five steps on the digits; return the network's weights."""
    torch.manual_seed(0)
    data = CIFAR10DataModule(
        source="digits", batch_size=128, train_size=600, seed=0, engine=options.pop("engine", "batch")
    )
    model = ImageClassifier(width=4, dropout=0.1, lr_max=options.pop("lr_max", 3e-3), lr_min=1e-4)
    shared = {"enable_progress_bar": False, "default_root_dir": str(root), "run_name": "demo"}
    trainer = Trainer(callbacks=list(callbacks), max_epochs=epochs, max_time=max_time, **shared)
    customresnet.fit(model, data, trainer, report=False, **options)
    return {name: tensor.clone() for name, tensor in model.net.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], str]:
    """Weights and epochs.csv of an uninterrupted run."""
    root = tmp_path_factory.mktemp("whole")
    return fit(root), (root / RUN / "epochs.csv").read_text()


@pytest.mark.parametrize("batch", [0, 3, 4, 5, 9])
def test_sigterm_saves_the_step_and_a_resumed_run_equals_an_uninterrupted_one(tmp_path, whole, capsys, batch):
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path, Terminate(batch))
    assert stop.value.code == 143
    assert f"terminated: all {batch + 1} steps are kept; resume with: fit --ckpt_path" in capsys.readouterr().out
    assert torch.load(tmp_path / RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] == batch + 1
    weights = fit(tmp_path, auto_resume=True)
    assert equal(weights, whole[0])
    assert (tmp_path / RUN / "epochs.csv").read_text() == whole[1]


def test_a_run_interrupted_in_its_first_epoch_resumes_from_its_start(tmp_path, whole):
    with pytest.raises(SystemExit):
        fit(tmp_path, Raise(3))
    assert torch.load(tmp_path / RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 0
    assert equal(fit(tmp_path, ckpt_path="last"), whole[0])
    assert (tmp_path / RUN / "epochs.csv").read_text() == whole[1]


def test_ten_pieces_of_a_job_equal_one_run(tmp_path):
    """Every piece ends by its time limit, after an epoch, or by SIGTERM, within one."""
    one = fit(tmp_path / "one", epochs=8)
    for number in range(9):
        if number % 2:
            fit(tmp_path, epochs=8, max_time={"milliseconds": 1}, auto_resume=True)
        else:
            with pytest.raises(SystemExit):
                fit(tmp_path, Terminate(4 * number + 2), epochs=8, auto_resume=True)
    assert equal(fit(tmp_path, epochs=8, auto_resume=True), one)
    record = tmp_path / RUN / "epochs.csv"
    assert record.read_text() == (tmp_path / "one" / RUN / "epochs.csv").read_text()


def test_a_run_killed_after_its_last_epoch_is_completed_without_training(tmp_path, whole):
    fit(tmp_path)
    result = read_json(tmp_path / RUN / "result.json")
    (tmp_path / RUN / "result.json").unlink()
    assert equal(fit(tmp_path, ckpt_path="last"), whole[0])
    again = read_json(tmp_path / RUN / "result.json")
    for key in ("ended", "epochs", "steps", "test/acc", "test/loss", "train/loss"):
        assert again[key] == result[key]
    assert (tmp_path / RUN / "epochs.csv").read_text() == whole[1]


def test_checkpoints_are_written_by_the_clock(tmp_path):
    with pytest.raises(SystemExit):
        fit(tmp_path, Raise(4), checkpoint_every_minutes=1e-9)  # at every step but the last of an epoch
    assert torch.load(tmp_path / RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


@pytest.mark.parametrize("engine", ["batch", "albumentations"])
def test_checkpoints_within_an_epoch_lose_fewer_steps(tmp_path, engine):
    uninterrupted = fit(tmp_path / "whole", engine=engine)
    with pytest.raises(SystemExit):
        fit(tmp_path, Raise(8), checkpoint_every_n_steps=2, engine=engine)
    assert torch.load(tmp_path / RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 8
    assert equal(fit(tmp_path, auto_resume=True, engine=engine), uninterrupted)


def test_auto_resume_starts_resumes_and_stops(run):
    words = ["fit", *TINY, "--auto_resume"]
    interrupted = run(*words, "--trainer.callbacks", "tests.conftest.StopAfterOneEpoch")
    assert interrupted.code == 1
    resumed = run(*words, "--trainer.callbacks", "[]")
    assert resumed.code == 0, resumed.err
    assert "epoch 1/2" not in resumed.out
    again = run(*words, "--trainer.callbacks", "[]")
    assert (again.code, again.out) == (0, f"{RUN} is finished: nothing to do (--auto_resume)\n")
    assert [path.name for path in RUN.parent.iterdir()] == ["version_0"]


def test_the_bounds_that_a_killed_run_found_are_not_measured_again(run):
    words = ["fit", *SMALL, "--model.width", "4", "--lr_find.steps", "30"]
    run(*words, "--trainer.callbacks", "[{class_path: tests.training.test_interruptions.Raise, init_args: {batch: 2}}]")
    found = read_json(RUN / "lr_find.json")
    outcome = run("fit", "--config", "demo", "--ckpt_path", "last", "--trainer.callbacks", "[]")
    assert outcome.code == 0, outcome.err
    assert "LR range test" not in outcome.out
    assert read_json(RUN / "result.json")["lr_max"] == found["lr_max"]


@pytest.mark.slow
def test_a_run_terminated_in_the_lr_range_test_leaves_nothing_and_says_start_again(tmp_path):
    words = [*SMALL, "--lr_find.steps", "100000", "--report", "false"]
    child = subprocess.Popen(
        [sys.executable, "-m", "customresnet", "fit", *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("LR range test"):
            break
    time.sleep(3)  # until the test has begun
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 143
    assert "terminated in the LR range test: nothing is trained yet; start again" in out
    assert not (tmp_path / RUN).exists()


# ------------------------------------------------------------------------------------------------- loss and disk


@pytest.mark.parametrize("lr_max", [1e30, 1e4])
def test_a_loss_that_is_no_number_or_explodes_ends_the_run_at_once_and_keeps_the_last_good_network(
    tmp_path, capsys, lr_max
):
    weights = fit(tmp_path, lr_max=lr_max)
    out = capsys.readouterr().out
    assert "the training loss is " in out
    assert "training stops; its batch is in" in out
    assert "lower LRMAX (--model.lr_max)" in out
    assert read_json(tmp_path / RUN / "result.json")["ended"] == "diverged"
    kept = torch.load(tmp_path / RUN / "checkpoints/last.ckpt", weights_only=True)
    assert all(bool(tensor.isfinite().all()) for tensor in kept["state_dict"].values())
    batch = torch.load(tmp_path / RUN / "diverged_batch.pt", weights_only=True)
    assert batch["images"].shape[1:] == (3, 32, 32)
    assert len(weights) > 0


def test_the_saved_batch_is_the_one_that_diverged(tmp_path):
    seen: dict[int, torch.Tensor] = {}

    class Poison(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen[batch_idx] = batch[0].clone()
            if batch_idx == 3:
                pl_module.net.head.weight.data.fill_(float("nan"))

    fit(tmp_path, Poison())
    batch = torch.load(tmp_path / RUN / "diverged_batch.pt", weights_only=True)
    assert (batch["epoch"], batch["batch"]) == (1, 4)
    assert torch.equal(batch["images"], seen[3])
    assert max(seen) == 3


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(tmp_path, whole, capsys, monkeypatch):
    write, calls = durable._write, []

    def full_at_first(part: Path, content: memoryview) -> None:
        calls.append(part)
        if len(calls) == 2:
            full()
        write(part, content)

    monkeypatch.setattr(durable, "_write", full_at_first)
    assert equal(fit(tmp_path), whole[0])
    assert "warning: could not write" in capsys.readouterr().err
    assert torch.load(tmp_path / RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 10


def test_a_network_that_cannot_be_written_to_its_place_is_written_elsewhere_and_said(
    tmp_path, whole, monkeypatch, capsys
):
    write = durable._write

    def full_there(part: Path, content: memoryview) -> None:
        if "checkpoints" in part.parts:
            full()
        write(part, content)

    monkeypatch.setattr(durable, "_write", full_there)
    with pytest.raises(UnsavedError, match="the trained network is in"):
        fit(tmp_path)
    saved = torch.load(tmp_path / "demo-last.ckpt", weights_only=True)["state_dict"]
    assert equal({name.removeprefix("net."): tensor for name, tensor in saved.items()}, whole[0])


def test_records_that_cannot_be_written_do_not_end_the_training(tmp_path, whole, monkeypatch, capsys):
    monkeypatch.setattr("customresnet.runs.files.write_atomically", full)
    assert equal(fit(tmp_path), whole[0])
    out = capsys.readouterr().out
    assert "warning: could not write epochs.csv (No space left on device)" in out
    assert "warning: could not write result.json (No space left on device)" in out


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_resumes_to_the_same_end(tmp_path, whole, capsys):
    with pytest.raises(SystemExit):
        fit(tmp_path, Raise(7), checkpoint_every_n_steps=3)
    last = tmp_path / RUN / "checkpoints/last.ckpt"
    assert previous(last).is_file()
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    assert equal(fit(tmp_path, auto_resume=True), whole[0])
    assert "is damaged" in capsys.readouterr().err
    assert not previous(last).exists()  # the run is finished


def test_result_json_is_strict_json(tmp_path):
    fit(tmp_path, lr_max=1e30)
    json.loads((tmp_path / RUN / "result.json").read_text(), parse_constant=pytest.fail)


# --------------------------------------------------------------------------------------------------- TensorBoard


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every point that TensorBoard shows of a run, without times, and the number of graphs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), {"scalars": 0}).Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return {tag: values for tag, values in found.items() if "/" in tag or tag in ("lr", "lr-momentum", "epoch")}


@pytest.mark.parametrize("batch", [0, 3, 4, 6])
def test_tensorboard_has_every_point_once_after_a_resume(tmp_path, capfd, batch):
    fit(tmp_path / "whole")
    with pytest.raises(SystemExit):
        fit(tmp_path, Terminate(batch) if batch else Raise(3))
    capfd.readouterr()
    fit(tmp_path, auto_resume=True)
    assert points(tmp_path / RUN) == points(tmp_path / "whole" / RUN)
    assert "graph" not in capfd.readouterr().err


def test_a_killed_run_has_in_tensorboard_what_its_checkpoint_has(tmp_path):
    code = (
        "import os, pytorch_lightning as pl\n"
        "from tests.training.test_interruptions import fit, Path\n"
        "class Kill(pl.Callback):\n"
        "    def on_train_batch_start(self, trainer, module, batch, batch_idx):\n"
        "        if trainer.global_step == 7: os.kill(os.getpid(), 9)\n"
        f"fit(Path({str(tmp_path)!r}), Kill())\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, check=False)
    assert [step for step, _ in points(tmp_path / RUN)["train/loss"]] == [4]
    fit(tmp_path, auto_resume=True)
    fit(tmp_path / "whole")
    assert points(tmp_path / RUN) == points(tmp_path / "whole" / RUN)


def test_a_disk_that_is_full_for_a_while_costs_tensorboard_only_the_points_in_between(
    tmp_path, whole, monkeypatch, capsys
):
    from tensorboard.summary.writer.record_writer import RecordWriter

    write, state = RecordWriter.write, {"full": False}

    def maybe_full(self: Any, data: bytes) -> None:
        if state["full"]:
            full()
        write(self, data)

    class Fill(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            state["full"] = 2 <= trainer.global_step < 5

    monkeypatch.setattr(RecordWriter, "write", maybe_full)
    assert equal(fit(tmp_path, Fill()), whole[0])
    assert "warning: could not write to TensorBoard (No space left on device)" in capsys.readouterr().err
    shown = {step for step, _ in points(tmp_path / RUN)["lr"]}
    assert shown >= {0, 1, 6, 7, 8, 9}


def test_notes_name_flags_on_the_command_line_and_parameters_in_python(run, tmp_path, capsys):
    finished = tmp_path / "finished"
    fit(finished)
    capsys.readouterr()
    fit(finished, auto_resume=True)
    assert "nothing to do (`auto_resume`)" in capsys.readouterr().out
    words = ["fit", *TINY, "--auto_resume", "--trainer.default_root_dir", str(finished)]
    assert "nothing to do (--auto_resume)" in run(*words).out
