"""The ablation of mistakes: each variant makes exactly its mistake, and finished runs are not repeated."""

import argparse
import math
import sys
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from customresnet import CIFAR10DataModule, ImageClassifier, Trainer, fit
from customresnet.data.transforms.policy import CIFAR10_MEAN, CIFAR10_STD
from customresnet.training.lightning import callbacks_of
from experiments import mistakes
from tests.conftest import read_json

ARGS = argparse.Namespace(source="digits", root=None, epochs=2, train_size=200, batch_size=64, width=8)
STEPS = 2 * math.ceil(200 / 64)


def prepare(name: str) -> tuple[Trainer, ImageClassifier, CIFAR10DataModule]:
    return mistakes.prepare(mistakes.VARIANTS[name], 0, ARGS)


def last_lr(name: str) -> tuple[float, int]:
    """Train; return the learning rate of the last step and the number of steps."""
    trainer, model, data = prepare(name)
    rates: list[float] = []

    class Recorder(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    callbacks_of(trainer).append(Recorder())
    fit(model, data, trainer, report=False)
    return rates[-1], len(rates)


def batch_of(data: CIFAR10DataModule, split: str) -> torch.Tensor:
    data.setup("fit")
    return next(iter(data.train_dataloader() if split == "train" else data.test_dataloader()))[0]


def test_softmax_before_the_loss_keeps_it_from_falling():
    _, model, _ = prepare("softmax before the loss")
    assert torch.allclose(model.net(torch.randn(4, 3, 32, 32)).sum(1), torch.ones(4))
    certain = F.cross_entropy(torch.eye(10), torch.arange(10))  # correct with probability 1
    assert certain.item() == pytest.approx(math.log(math.e + 9) - 1)
    assert f"{certain:.2f}" in mistakes.VARIANTS["softmax before the loss"].description


def test_a_different_std_applies_to_test_images_only():
    right, wrong = (prepare(name)[2] for name in (mistakes.BASELINE, "different std at test time"))
    assert torch.equal(batch_of(wrong, "train"), batch_of(right, "train"))
    std = torch.tensor(CIFAR10_STD).view(3, 1, 1)
    assert torch.allclose(batch_of(wrong, "test") * 0.5, batch_of(right, "test") * std, atol=1e-5)


def test_the_raw_mean_fills_one_hole_of_each_image():
    right, wrong = (batch_of(prepare(name)[2], "train") for name in (mistakes.BASELINE, "cutout with the raw mean"))
    holes = (right == 0).all(1)
    assert holes.sum(dim=(1, 2)).eq(64).all()
    assert torch.equal(wrong[~holes[:, None].expand_as(wrong)], right[~holes[:, None].expand_as(right)])
    filled = wrong.movedim(1, -1)[holes]
    assert torch.allclose(filled, torch.tensor(CIFAR10_MEAN).expand_as(filled))


def test_each_schedule_ends_at_its_learning_rate():
    lr_min, lr_max = 1e-4, 2e-3
    assert last_lr(mistakes.BASELINE) == (pytest.approx(lr_min), STEPS)
    lr, steps = last_lr("schedule too long")
    assert steps == STEPS
    assert 0.9 * lr_max < lr <= lr_max
    assert last_lr("annihilated schedule") == (pytest.approx(lr_min / 10_000), STEPS)
    assert last_lr("dropped last batch") == (pytest.approx(lr_min), 2 * (200 // 64))


def test_the_control_uses_another_random_stream_of_the_same_policy():
    data = prepare("control: batch backend")[2]
    batch = batch_of(data, "train")
    assert (batch == 0).all(1).sum(dim=(1, 2)).eq(64).all()
    other = prepare(mistakes.BASELINE)[2]
    assert not torch.equal(batch, batch_of(other, "train"))
    assert torch.allclose(batch_of(data, "test"), batch_of(other, "test"), atol=1e-5)


def test_it_resumes_and_pairs_costs_by_seed(tmp_path, monkeypatch, capsys):
    chosen = {name: mistakes.VARIANTS[name] for name in (mistakes.BASELINE, "dropped last batch")}
    monkeypatch.setattr(mistakes, "VARIANTS", chosen)
    output = tmp_path / "mistakes.json"
    words = ["mistakes.py", "--source", "digits", "--train_size", "200", "--batch_size", "64", "--width", "8"]
    words += ["--epochs", "1", "--output", str(output), "--seeds"]
    monkeypatch.setattr(sys, "argv", [*words, "1"])
    mistakes.main()
    first = read_json(output)["runs"]
    assert all(0 < runs["0"]["test/acc"] < 1 for runs in first.values())
    trained = []
    metrics = iter([{"test/acc": 0.9}, {"test/acc": 0.7}, {"test/acc": 0.5}, {"test/acc": 0.5}])

    def train(variant: mistakes.Variant, seed: int, args: argparse.Namespace) -> dict[str, float]:
        trained.append(seed)
        return next(metrics)

    monkeypatch.setattr(mistakes, "train", train)
    monkeypatch.setattr(sys, "argv", [*words, "2"])
    capsys.readouterr()
    mistakes.main()
    assert trained == [1, 1]  # seed 0 is finished
    whole = read_json(output)["runs"]
    assert {name: runs["0"] for name, runs in whole.items()} == {name: runs["0"] for name, runs in first.items()}
    costs = [100 * (first[mistakes.BASELINE]["0"]["test/acc"] - first["dropped last batch"]["0"]["test/acc"]), 20.0]
    deviation = abs(costs[0] - costs[1]) / math.sqrt(2)
    assert f"{sum(costs) / 2:+.2f} ± {deviation:.2f}" in capsys.readouterr().out
    chosen["schedule too long"] = mistakes.Variant("A new variant.")
    mistakes.main()
    assert trained == [1, 1, 0, 1]  # only the new variant
    monkeypatch.setattr(sys, "argv", [*words, "1", "--epochs", "2"])
    with pytest.raises(SystemExit):
        mistakes.main()
    assert "holds runs with a different budget" in capsys.readouterr().err
