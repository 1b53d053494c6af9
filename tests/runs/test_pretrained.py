"""The weights that come with the package: usable at once, with their recipe and results."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from customresnet.data.sources.cifar import CIFAR10_CLASSES
from customresnet.runs.checkpoint import read_weights
from customresnet.runs.folders import SHIPPED
from tests.conftest import read_json

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shipped() -> dict:
    return read_weights(SHIPPED)


def test_they_are_small_and_hold_their_recipe_and_results(shipped):
    assert SHIPPED.stat().st_size < 500_000
    weights = [tensor for name, tensor in shipped["state_dict"].items() if name.startswith("net.")]
    assert shipped["hyper_parameters"]["network"] == "advanced_net"
    assert shipped["result"]["parameters"] < 100_000
    assert all(torch.isfinite(tensor).all() for tensor in weights if tensor.is_floating_point())
    assert shipped["preprocessing"]["classes"] == list(CIFAR10_CLASSES)
    assert shipped["preprocessing"]["source"] == "cifar10"
    assert shipped["result"]["test/images"] == 10_000
    assert len(shipped["metrics"]) == shipped["result"]["epochs"]


def test_the_documents_quote_their_accuracy(shipped):
    accuracy = f"{shipped['result']['test/correct']:,} of 10,000"
    for name in ("README.md", "docs/results.md"):
        assert accuracy in (ROOT / name).read_text(encoding="utf-8"), name


def test_predict_works_without_training(run):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("a.png")
    outcome = run("predict", "--ckpt_path", "pretrained", "--images", "a.png")
    assert outcome.code == 0, outcome.err
    rows = read_json(Path("lightning_logs/pretrained/predictions.json"))  # not in the package
    assert {entry["class"] for entry in rows[0]["top"]} <= set(CIFAR10_CLASSES)
