"""The export command: a finished run as one weights file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import one_line, read_json


@pytest.fixture
def finished(run, small_run) -> Path:
    """A copy of a finished run in the current folder."""
    return Path(shutil.copytree(small_run, "lightning_logs/demo/version_0"))


def test_an_exported_run_evaluates_and_predicts_as_the_run_does(run, finished):
    outcome = run("export", "--ckpt_path", str(finished), "--format", "safetensors")
    assert outcome.code == 0, outcome.err
    path = finished / "custom_resnet_width_8.safetensors"
    assert f"written: {path}" in outcome.out
    result = read_json(finished / "result.json")
    assert f"{result['test/correct']} of 360 test images classified correctly" in outcome.out
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save("a.png")
    for words in (["test"], ["predict", "--images", "a.png"]):
        from_file, from_run = (run(*words, "--ckpt_path", str(ckpt)) for ckpt in (path, finished))
        assert from_file.code == from_run.code == 0
        assert from_file.out.splitlines()[0] == from_run.out.splitlines()[0]
    assert f"{result['test/correct']}/360" in run("test", "--ckpt_path", str(path)).out


def test_output_and_source_can_be_chosen(run, finished):
    outcome = run("export", "--ckpt_path", "last", "--output", "shared/mine.safetensors", "--source", "my digits")
    assert outcome.code == 0, outcome.err
    assert "trained on my digits" in outcome.out
    assert run("test", "--ckpt_path", "shared/mine.safetensors", "--data.source", "digits").code == 0


def test_a_run_that_was_not_evaluated_is_exported(run, finished):
    result = read_json(finished / "result.json")
    evaluated = ("test/acc", "test/loss", "test/correct", "test/images")
    (finished / "result.json").write_text(json.dumps({k: v for k, v in result.items() if k not in evaluated}))
    outcome = run("export", "--ckpt_path", str(finished))
    assert outcome.code == 0, outcome.err
    assert "for 2 epochs: not evaluated" in outcome.out


def test_an_unfinished_run_is_refused(run, finished):
    (finished / "result.json").unlink()
    one_line(run("export", "--ckpt_path", str(finished)), f"--ckpt_path {finished}:", "unfinished")
    assert not list(Path().rglob("*.safetensors"))


def test_another_suffix_is_refused(run, finished):
    outcome = run("export", "--ckpt_path", str(finished), "--output", "mine.ckpt")
    one_line(outcome, "--output must be a .safetensors file; received mine.ckpt")


def test_the_checkpoint_is_required(run):
    one_line(run("export"), "export needs --ckpt_path")
