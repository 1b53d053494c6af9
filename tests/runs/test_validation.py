"""Damaged and hostile checkpoints, weights files and records: one line that names what is wrong, or tolerance."""

import json
import os
import random
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from customresnet.runs.checkpoint import read_checkpoint, write_weights
from customresnet.runs.record import RunRecord
from customresnet.runtime.errors import UserError
from customresnet.training.checkpoints import checkpoint_callback
from tests.conftest import BOUNDS, SMALL, one_line, read_json, train

RUN = Path("lightning_logs/demo/version_0")
LAST = RUN / "checkpoints/last.ckpt"
CHECKPOINT = checkpoint_callback("last").state_key


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """The folder of a run to be resumed."""
    folder = train(tmp_path_factory.mktemp("begun"), *BOUNDS, "--model.width", "4")
    (folder / "result.json").unlink()
    return folder


@pytest.fixture
def copy(run, begun) -> Path:
    """A copy of that run in the current folder."""
    return Path(shutil.copytree(begun, RUN))


def edit(path: tuple[Any, ...], value: Any) -> None:
    """Replace a value in the checkpoint; None removes it."""
    checkpoint = torch.load(LAST, weights_only=True)
    part = checkpoint
    for key in path[:-1]:
        part = part[key]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    torch.save(checkpoint, LAST)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("hyper_parameters", "width"), 100_000, "hyper_parameters.width must be a whole number from 1 to 4,096"),
        (("hyper_parameters", "width"), 8, "its weights do not fit the network custom_resnet of width 8"),
        (("hyper_parameters", "dropout"), "much", "hyper_parameters.dropout must be a number from 0 to 1"),
        (("hyper_parameters", "lr_max"), None, "it lacks hyper_parameters.lr_max"),
        (("hyper_parameters",), [1], "hyper_parameters must be a mapping by name; received a list"),
        (("preprocessing", "image_size"), 100_000, "preprocessing.image_size must be a whole number from 32 to 1,024"),
        (("preprocessing", "mean"), [0.5, 0.5, float("nan")], "preprocessing.mean must be 3 values"),
        (("preprocessing", "classes"), ["0", "1"], "it names 2 classes of 10"),
        (("pytorch-lightning_version",), "one", "pytorch-lightning_version must be a version; received 'one'"),
        (("epoch",), -1, "epoch must be a whole number from 0"),
        (
            ("state_dict", "net.prep.0.weight"),
            torch.zeros(4, 3, 5, 5),
            "prep.0.weight is (4, 3, 5, 5), the network's (4",
        ),
        (("state_dict", "net.prep.1.bias"), torch.full((4,), float("nan")), "contains values that are not finite"),
        (("state_dict", "net.prep.1.bias"), torch.zeros(1).expand(10**6, 10**6), "is no dense tensor"),
        (("state_dict", "net.prep.1.bias"), None, "prep.1.bias is missing"),
        (("deep",), json.loads("[" * 200 + "]" * 200), "nested more than 64 levels deep"),
    ],
)
def test_a_checkpoints_content_is_checked(run, copy, path, value, message):
    edit(path, value)
    one_line(run("predict", "--ckpt_path", str(LAST), "--images", "a.png"), f"--ckpt_path {LAST} is damaged", message)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("optimizer_states", 0, "state", 0, "exp_avg"),
            torch.zeros(7),
            "0.exp_avg must be finite numbers of shape (4, 3",
        ),
        (("optimizer_states", 0, "state", 0, "exp_avg_sq"), None, "exp_avg_sq"),
        (("optimizer_states", 0, "param_groups", 0, "params"), [0, 1], "params must be a list of"),
        (("optimizer_states", 0, "param_groups", 0, "lr"), "fast", "lr must be a number"),
        (("optimizer_states", 0, "param_groups", 0, "maximize"), True, "maximize must be False; received True"),
        (("optimizer_states",), [], "the state of one optimizer"),
        (("optimizer_states", 0, "state"), {}, "0.state is not that of the network's parameters"),
        (("optimizer_states", 0, "state"), {"0": {}}, "0.state is not that of the network's parameters"),
        (("optimizer_states", 0, "state", 3), torch.zeros(2), "optimizer_states.0.state.3 must be a mapping"),
        (("optimizer_states", 0, "state", 3), {}, "it lacks optimizer_states.0.state.3.step"),
        (
            ("loops", "fit_loop", "epoch_loop.manual_optimization.optim_step_progress", "current"),
            3,
            "must be a mapping",
        ),
        (("callbacks", CHECKPOINT, "best_k_models"), {"a": "b"}, "best_k_models must be a mapping to numbers"),
        (("callbacks", CHECKPOINT, "current_score"), 3, "current_score must be one number, or null"),
        (("lr_schedulers", 0, "total_steps"), 7, "lr_schedulers.0.total_steps must be 24; received 7"),
        (("lr_schedulers", 0, "last_epoch"), 3, "its scheduler is at step 3 of 24"),
        (("loops", "fit_loop", "epoch_progress"), None, "it lacks loops.fit_loop.epoch_progress"),
        (("loops", "fit_loop", "epoch_progress", "current", "ready"), "two", "ready must be a whole number"),
        (("callbacks", "RunLog", "rows"), [{"loss": 1}], "it lacks callbacks.RunLog.rows.epoch"),
        (("callbacks",), 3, "callbacks must be a mapping by name; received 3"),
        (("callbacks",), {1: {}}, "callbacks must be a mapping by name; received a dict"),
    ],
)
def test_the_state_of_a_resumed_run_is_checked(run, copy, path, value, message):
    """A wrong shape in the optimizer's state ended in a segmentation fault."""
    edit(path, value)
    one_line(run("fit", "--ckpt_path", "last", "--config", "demo"), message)
    assert not (RUN / "result.json").exists()


def test_archives_that_grow_are_refused_unread(run, copy):
    with zipfile.ZipFile(LAST) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(LAST, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, bytes(10**7) if name.endswith("data/0") else data)
    one_line(run("summary", "--ckpt_path", str(LAST)), "it contains compressed entries")
    LAST.unlink()
    os.mkfifo(LAST)
    one_line(run("summary", "--ckpt_path", str(LAST)), "no such checkpoint")


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("command", ["fit", "test", "predict", "compare"])
def test_code_in_a_checkpoint_is_not_run(run, command, zipped):
    torch.save({"state_dict": Code()}, "evil.ckpt", _use_new_zipfile_serialization=zipped)
    where = ["evil.ckpt"] if command == "compare" else ["--ckpt_path", "evil.ckpt"]
    one_line(run(command, *where, *(["--images", "a.png"] if command == "predict" else [])), "not a checkpoint")
    assert not Path("executed").exists()


@pytest.fixture(scope="module")
def weights_file(small_run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    last = small_run / "checkpoints/last.ckpt"
    checkpoint = read_checkpoint(last)
    write_weights(path, checkpoint, vars(RunRecord.beside(last, checkpoint)))
    return path


def test_every_flipped_bit_of_a_weights_file_is_noticed(weights_file, tmp_path):
    whole, data = read_checkpoint(weights_file), weights_file.read_bytes()
    rng, path = random.Random(0), tmp_path / "flipped.safetensors"
    header = struct.unpack("<Q", data[:8])[0] + 8
    positions = [rng.randrange(header) for _ in range(20)] + [rng.randrange(header, len(data)) for _ in range(20)]
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read = read_checkpoint(path)
        except UserError:
            continue
        # only the checksum's own name is not covered: the file then counts as one of before checksums
        assert position < header
        assert all(torch.equal(read["state_dict"][name], tensor) for name, tensor in whole["state_dict"].items())
        assert read["preprocessing"] == whole["preprocessing"]


DAMAGED = [
    ("result.json", ""),
    ("result.json", "{}"),
    ("result.json", '{"steps": "many", "seconds": -1e999, "versions": 3, "epochs": [1], "test/acc": NaN}'),
    ("result.json", "[" * 5_000),
    ("config.yaml", "data: {source: dig"),
    ("config.yaml", "data: 3\nmodel: [1]\ntrainer: x"),
    ("config.yaml", "data: {batch_size: x, val_size: [1], augment: {pad: x, nope: 2}, root: 5}"),
    ("config.yaml", "model: {network: evil.Net, width: 1000000000}"),
    ("epochs.csv", "epoch,step,lr,te"),
    ("epochs.csv", "step,test/acc\n1,0.5\n"),
    ("epochs.csv", "epoch,test/acc\n1,1e308\n2,0.5\n"),
    ("epochs.csv", None),
    ("lr_find.json", "[1]"),
]


def damage(file: str, content: str | None) -> None:
    (RUN / file).unlink(missing_ok=True)
    if content is None:
        os.mkfifo(RUN / file)
    else:
        (RUN / file).write_text(content)


@pytest.mark.parametrize(("file", "content"), DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_records_are_compared(run, small_run, file, content):
    shutil.copytree(small_run, RUN)
    damage(file, content)
    outcome = run("compare", str(RUN))
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("number", [0, 1])
def test_a_report_tells_what_damaged_records_still_hold(run, small_run, number):
    shutil.copytree(small_run, RUN)
    for file, content in dict(DAMAGED[2::2] if number else DAMAGED[1:9:2]).items():  # the last one of each file
        damage(file, content)
    outcome = run("report", "--ckpt_path", str(LAST), "--gallery.images", "0")
    assert outcome.code == 0, outcome.err
    assert read_json(RUN / "report/overview.json")["images"] == 360


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"flags": {}, "lrs": [0.1, NaN], "steps": 1, "points": []}',
        '{"flags": {}, "lrs": [0.1], "steps": 1, "points": [{"lr": 0.1, "images": "x"}]}',
        '{"flags": {}, "lrs": 3, "steps": 1, "points": []}',
        '{"flags": {}, "lrs": [0.1], "steps": 1, "points": [3]}',
    ],
)
def test_a_damaged_sweep_is_not_resumed(run, content):
    folder = Path("lightning_logs/demo/version_0")
    folder.mkdir(parents=True)
    (folder / "lr_sweep.json").write_text(content)
    one_line(run("lr-sweep", *SMALL, "--resume"), "--resume", "lr_sweep.json is damaged", "delete it to start again")
