"""torch.compile: where auto takes it, and that fit does what was decided."""

import pytest
import torch
from torch import nn

from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.training import compilation
from customresnet.training.compilation import WORTH_IMAGES, worth_compiling
from tests.conftest import read_json

CPU = torch.device("cpu")


@pytest.fixture
def fast_cpu(monkeypatch):
    monkeypatch.setattr(compilation, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(compilation, "_can_compile", lambda: True)


def test_a_long_run_of_the_large_network_with_bf16_is_worth_it(fast_cpu):
    assert worth_compiling("custom_resnet", CPU, "bf16-mixed", WORTH_IMAGES)


@pytest.mark.parametrize(
    "other",
    [
        {"images": WORTH_IMAGES - 1},
        {"network": "advanced_net"},
        {"device": torch.device("cuda")},
        {"precision": "32-true"},
    ],
)
def test_nothing_else_is(fast_cpu, other):
    whole = {"network": "custom_resnet", "device": CPU, "precision": "bf16-mixed", "images": WORTH_IMAGES}
    assert not worth_compiling(**{**whole, **other})


def test_nor_where_the_hardware_or_the_compiler_is_missing(fast_cpu, monkeypatch):
    monkeypatch.setattr(compilation, "cpu_has_bf16", lambda: False)
    assert not worth_compiling("custom_resnet", CPU, "bf16-mixed", WORTH_IMAGES)
    monkeypatch.undo()
    monkeypatch.setattr(compilation, "cpu_has_bf16", lambda: True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not worth_compiling("custom_resnet", CPU, "bf16-mixed", WORTH_IMAGES)


@pytest.mark.parametrize(
    ("asked", "worth", "expected"),
    [("auto", True, True), ("auto", False, False), (True, False, True), (False, True, False)],
)
def test_fit_compiles_as_decided_and_the_result_says_so(tmp_path, monkeypatch, asked, worth, expected):
    decided, compiled = [], []
    monkeypatch.setattr(
        "customresnet.training.classifier.worth_compiling", lambda *given: decided.append(given) or worth
    )
    monkeypatch.setattr(nn.Module, "compile", lambda network, **options: compiled.append(network))
    data = CIFAR10DataModule(source="digits", batch_size=512, seed=0)
    model = ImageClassifier(width=4, lr_max=3e-3, lr_min=1e-4, compile=asked)
    trainer = Trainer(max_epochs=2, precision="32-true", default_root_dir=str(tmp_path), enable_progress_bar=False)
    trainer.fit(model, datamodule=data)
    assert compiled == [model.net] * expected
    assert read_json(tmp_path / "lightning_logs/customresnet/version_0/result.json")["compiled"] is expected
    # 1,437 images are 3 batches an epoch
    assert decided == ([("custom_resnet", CPU, "32-true", 2 * 3 * 512)] if asked == "auto" else [])
