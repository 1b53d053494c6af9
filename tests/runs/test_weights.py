"""Weights in the form that ships with the package: the same network, the same answers, numbers and words only."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from customresnet.runs import folders as runs
from customresnet.runs.checkpoint import read_checkpoint
from customresnet.runs import weights
from customresnet.runs.files import read_record
from tests.conftest import read_json


@pytest.fixture(scope="module")
def shipped(small_run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoint = read_checkpoint(small_run / "checkpoints" / "last.ckpt")
    records = {name: read_record(name, small_run) for name in weights.RECORDS}
    label = weights.write_weights(path, checkpoint, records, source="digits")
    result = read_json(small_run / "result.json")
    assert label == (
        f"custom_resnet, {result['parameters']:,} parameters, trained on digits for 2 epochs: "
        f"{result['test/correct']} of 360 test images right ({result['test/acc']:.2%})"
    )
    return path


def test_they_are_the_runs_weights_and_say_what_they_are(shipped, small_run):
    saved = torch.load(small_run / "checkpoints" / "last.ckpt", weights_only=True)
    read = read_checkpoint(shipped)
    assert read["state_dict"].keys() == saved["state_dict"].keys()
    assert all(torch.equal(read["state_dict"][name], saved["state_dict"][name]) for name in saved["state_dict"])
    assert read["hyper_parameters"]["width"] == 8
    assert read["preprocessing"]["classes"] == list("0123456789")
    assert read["config"]["data"]["root"] is None
    assert read["result"] == read_json(small_run / "result.json")
    assert len(read["metrics"]) == 2
    with safe_open(shipped, "pt") as file:
        about = file.metadata()
    assert "digits" in about["description"]
    assert str(small_run.parents[2]) not in json.dumps(about)  # no path of the machine that trained them
    assert shipped.stat().st_size < 1.1 * sum(t.nbytes for t in saved["state_dict"].values()) + 20_000


def test_predict_and_test_answer_as_with_the_runs_own_checkpoint(run, shipped, small_run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    answers = [run("predict", "--ckpt_path", str(path), "--images", "a.png") for path in (shipped, small_run)]
    assert [outcome.code for outcome in answers] == [0, 0]
    assert answers[0].out.splitlines()[0] == answers[1].out.splitlines()[0]
    outcome = run("test", "--ckpt_path", str(shipped))
    assert outcome.code == 0, outcome.err
    assert f"{read_json(small_run / 'result.json')['test/correct']}/360" in outcome.out


@pytest.mark.parametrize("damage", ["cut", "foreign", "nothing"])
def test_a_damaged_file_is_named(run, shipped, tmp_path, damage):
    path, whole = tmp_path / "bad.safetensors", shipped.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "foreign":
        from safetensors.numpy import save_file

        save_file({"x": np.zeros(3)}, path)
    else:
        path.write_bytes(b"")
    outcome = run("predict", "--ckpt_path", str(path), "--images", "a.png")
    assert outcome.code == 2
    assert f"--ckpt_path {path} is damaged, or not weights of this project" in outcome.err


def test_training_cannot_go_on_with_them(run):
    outcome = run("fit", "--ckpt_path", "pretrained")
    assert outcome.code == 2
    assert "--ckpt_path pretrained: these weights are for use" in outcome.err
