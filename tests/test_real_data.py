"""Tests on the real CIFAR-10 images: run them with CIFAR10_ROOT=cifar10.zip make test."""

import os
from pathlib import Path

import pytest
import torch

from customresnet import CIFAR10DataModule
from customresnet.data.sources.cifar import CIFAR10_CLASSES
from customresnet.data.transforms.policy import CIFAR10_MEAN, CIFAR10_STD
from customresnet.runs import folders as runs
from customresnet.runs.checkpoint import read_weights
from tests.conftest import read_json

ROOT = os.environ.get("CIFAR10_ROOT")
REAL = Path(ROOT or ".").resolve()  # commands in tests run in another folder
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not ROOT, reason="CIFAR10_ROOT is not set to a folder or .zip of the images"),
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


def test_mean_and_std_are_those_of_the_training_images(module):
    pixels = module.train_images.images.view(-1, 3).double() / 255
    assert pixels.mean(0).tolist() == pytest.approx(CIFAR10_MEAN, abs=5e-5)
    assert pixels.std(0, correction=0).tolist() == pytest.approx(CIFAR10_STD, abs=5e-5)


def test_the_pretrained_weights_reach_their_recorded_accuracy(run):
    outcome = run("test", "--ckpt_path", "pretrained", "--data.source", "folder", "--data.root", str(REAL))
    assert outcome.code == 0, outcome.err
    correct = read_json(Path("lightning_logs/pretrained/test.json"))["test/correct"]
    recorded = read_weights(runs.SHIPPED)["result"]["test/correct"]
    assert correct == pytest.approx(recorded, abs=15)  # processors round differently
