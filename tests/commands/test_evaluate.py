"""The validate and test commands: they reproduce the evaluation of the run that they are given."""

import shutil
from pathlib import Path

import pytest

from customresnet.data.transforms.policy import CIFAR10_MEAN
from tests.conftest import BOUNDS, SMALL, one_line, read_json


def test_they_reproduce_the_last_evaluation_of_a_run(run, small_run):
    result = read_json(small_run / "result.json")
    for command in ("test", "validate"):
        outcome = run(command, "--ckpt_path", str(small_run))
        assert f"{result['test/correct']}/360" in outcome.out
        assert outcome.err == ""
        assert read_json(small_run / f"{command}.json")["test/loss"] == pytest.approx(result["test/loss"], rel=1e-5)


def test_a_checkpoint_brings_its_normalization(run):
    half = ["--data.mean", "[0.5, 0.5, 0.5]", "--data.std", "[0.5, 0.5, 0.5]"]
    assert run("fit", *SMALL, *BOUNDS, *half).code == 0
    folder = Path("lightning_logs/demo/version_0")
    result = read_json(folder / "result.json")
    outcome = run("test", "--config", "demo", "--ckpt_path", "last")
    assert outcome.code == 0
    assert read_json(folder / "test.json")["test/acc"] == result["test/acc"]
    one_line(run("test", "--ckpt_path", str(folder), "--data.mean", str(list(CIFAR10_MEAN))), "--data.mean", "[0.5")
    # also outside its run's folder
    shutil.copy(folder / "checkpoints/last.ckpt", "alone.ckpt")
    assert run("test", "--ckpt_path", "alone.ckpt").code == 0
    assert read_json(Path("test.json"))["test/acc"] == result["test/acc"]


def test_tta_averages_over_mirror_images(run, small_run):
    plain, tta = (run("test", "--ckpt_path", str(small_run), *flag) for flag in ((), ("--tta",)))
    assert tta.code == 0, tta.err
    assert "with flip TTA" in tta.out
    assert "TTA" not in plain.out
    results = [read_json(small_run / name) for name in ("test.json", "test_tta.json")]
    assert [result["tta"] for result in results] == [False, True]
    assert results[0]["test/loss"] != results[1]["test/loss"]
