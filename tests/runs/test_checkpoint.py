"""Checkpoints of this and other versions of the package."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from customresnet import ImageClassifier
from customresnet.runs.checkpoint import FORMAT, FORMAT_KEY, load_network, read_checkpoint
from tests.conftest import BOUNDS, SMALL, one_line, read_json

FOLDER = Path("lightning_logs/demo/version_0")


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a checkpoint file."""
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)


@pytest.fixture
def copy(run, small_run) -> Path:
    """A copy of a finished run in the current folder."""
    return Path(shutil.copytree(small_run, FOLDER))


def test_a_checkpoint_holds_its_format(small_run):
    assert torch.load(small_run / "checkpoints/last.ckpt", weights_only=True)[FORMAT_KEY] == FORMAT


@pytest.mark.parametrize("command", ["fit", "test", "predict", "export"])
def test_a_newer_format_is_refused(run, copy, command):
    (copy / "result.json").unlink()  # to be resumed
    edit(copy / "checkpoints/last.ckpt", lambda checkpoint: checkpoint.update({FORMAT_KEY: FORMAT + 1}))
    words = ["--images", "a.png"] if command == "predict" else []
    message = f"has format {FORMAT + 1}, this package reads up to {FORMAT}: update customresnet"
    one_line(run(command, "--ckpt_path", str(copy), *words), "--ckpt_path", message)


def test_a_checkpoint_from_before_formats_is_read(run, copy):
    path = copy / "checkpoints/last.ckpt"
    edit(path, lambda checkpoint: checkpoint.pop(FORMAT_KEY))
    outcome = run("test", "--ckpt_path", str(copy))
    assert outcome.code == 0, outcome.err
    assert f"{read_json(copy / 'result.json')['test/correct']}/360" in outcome.out
    (copy / "result.json").unlink()
    assert run("fit", "--ckpt_path", "last", "--config", "demo").code == 0
    assert read_json(copy / "result.json")["steps"] == 24
    assert FORMAT_KEY not in torch.load(path, weights_only=True)  # the run had ended: nothing was saved again
    assert ImageClassifier.load_from_checkpoint(path, weights_only=True).hparams["width"] == 8


def test_a_renamed_network_is_found_by_its_former_name(run):
    words = [*SMALL, *BOUNDS, "--model.network", "advanced_net_original", "--data.train_size", "300"]
    assert run("fit", *words).code == 0
    result = read_json(FOLDER / "result.json")
    path = FOLDER / "checkpoints/last.ckpt"
    edit(path, lambda checkpoint: checkpoint["hyper_parameters"].update(network="advanced_net_report"))
    config = yaml.safe_load((FOLDER / "config.yaml").read_text())
    config["model"]["network"] = "advanced_net_report"
    (FOLDER / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(path, "alone.ckpt")
    for ckpt_path in (str(FOLDER), "alone.ckpt"):
        outcome = run("test", "--ckpt_path", ckpt_path)
        assert outcome.code == 0, outcome.err
        assert f"{result['test/correct']}/360" in outcome.out
    assert type(load_network(read_checkpoint(path))).__name__ == "AdvancedNetOriginal"
    assert ImageClassifier.load_from_checkpoint(path, weights_only=True).hparams["network"] == "advanced_net_original"
    (FOLDER / "result.json").unlink()
    outcome = run("fit", "--ckpt_path", str(FOLDER))
    assert outcome.code == 0, outcome.err
