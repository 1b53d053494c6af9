"""The contract on the real images: CIFAR10_ROOT=cifar10.zip make test runs these."""

import os
from pathlib import Path

import pytest
import torch

from customresnet import CIFAR10DataModule
from customresnet.data.sources.cifar import CIFAR10_CLASSES
from customresnet.data.transforms.policy import CIFAR10_MEAN, CIFAR10_STD
from customresnet.runs import folders as runs
from customresnet.runs import weights
from tests.conftest import read_json

ROOT = os.environ.get("CIFAR10_ROOT")
REAL = Path(ROOT or ".").resolve()  # each command of a test runs in a folder of its own
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not ROOT, reason="CIFAR10_ROOT names no folder or .zip of the images"),
]


@pytest.fixture(scope="module")
def module() -> CIFAR10DataModule:
    module = CIFAR10DataModule(source="folder", root=REAL, seed=0)
    module.setup("fit")
    return module


def test_counts_classes_and_steps(module):
    train, test = module.train_images, module.test_images
    assert train.classes == CIFAR10_CLASSES
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert len(module.train_dataloader()) == 98
    assert sum(len(labels) for _, labels in module.test_dataloader()) == 10_000


def test_the_constants_are_those_of_the_training_images(module):
    pixels = module.train_images.images.view(-1, 3).double() / 255
    assert pixels.mean(0).tolist() == pytest.approx(CIFAR10_MEAN, abs=5e-5)
    assert pixels.std(0, correction=0).tolist() == pytest.approx(CIFAR10_STD, abs=5e-5)


def test_the_weights_that_ship_are_as_good_as_their_label_says(run):
    outcome = run(
        "test", "--ckpt_path", "pretrained", "--data.source", "folder", "--data.root", str(Path(ROOT).resolve())
    )
    assert outcome.code == 0, outcome.err
    correct = read_json(Path("lightning_logs/pretrained/test.json"))["test/correct"]
    said = weights.read_weights(runs.SHIPPED)["result"]["test/correct"]
    assert correct == pytest.approx(said, abs=15)  # another processor rounds otherwise
