"""Weights files: the network, its recipe and its results, as numbers and text only."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from customresnet.runs.checkpoint import read_checkpoint, write_weights
from customresnet.runs.record import RunRecord
from tests.conftest import one_line, read_json


@pytest.fixture(scope="module")
def weights_file(small_run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    last = small_run / "checkpoints" / "last.ckpt"
    checkpoint = read_checkpoint(last)
    description = write_weights(path, checkpoint, vars(RunRecord.beside(last, checkpoint)), source="digits")
    result = read_json(small_run / "result.json")
    assert description == (
        f"custom_resnet, {result['parameters']:,} parameters, trained on digits for 2 epochs: "
        f"{result['test/correct']} of 360 test images classified correctly ({result['test/acc']:.2%})"
    )
    return path


def test_a_weights_file_holds_the_runs_weights_recipe_and_results(weights_file, small_run):
    saved = torch.load(small_run / "checkpoints" / "last.ckpt", weights_only=True)
    read = read_checkpoint(weights_file)
    assert read["state_dict"].keys() == saved["state_dict"].keys()
    assert all(torch.equal(read["state_dict"][name], saved["state_dict"][name]) for name in saved["state_dict"])
    assert read["hyper_parameters"]["width"] == 8
    assert read["preprocessing"]["classes"] == list("0123456789")
    assert read["config"]["data"]["root"] is None
    assert read["result"] == read_json(small_run / "result.json")
    assert len(read["metrics"]) == 2
    with safe_open(weights_file, "pt") as file:
        metadata = file.metadata()
    assert "digits" in metadata["description"]
    assert str(small_run.parents[2]) not in json.dumps(metadata)  # no path of the machine that trained them
    assert weights_file.stat().st_size < 1.1 * sum(t.nbytes for t in saved["state_dict"].values()) + 20_000


def test_predict_and_test_give_the_same_with_a_weights_file_as_with_the_run(run, weights_file, small_run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    predicted = [run("predict", "--ckpt_path", str(path), "--images", "a.png") for path in (weights_file, small_run)]
    assert [outcome.code for outcome in predicted] == [0, 0]
    assert predicted[0].out.splitlines()[0] == predicted[1].out.splitlines()[0]
    outcome = run("test", "--ckpt_path", str(weights_file))
    assert outcome.code == 0, outcome.err
    assert f"{read_json(small_run / 'result.json')['test/correct']}/360" in outcome.out


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_a_damaged_file_is_refused(run, weights_file, tmp_path, damage):
    path, content = tmp_path / "bad.safetensors", weights_file.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "foreign":
        save_file({"x": np.zeros(3)}, path)
    else:
        path.write_bytes(b"")
    outcome = run("predict", "--ckpt_path", str(path), "--images", "a.png")
    one_line(outcome, f"--ckpt_path {path} is damaged or not a weights file of this project")


def test_training_cannot_resume_from_weights(run):
    one_line(run("fit", "--ckpt_path", "pretrained"), "--ckpt_path pretrained holds weights only")
