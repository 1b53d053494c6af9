"""The museum of mistakes: each exhibit makes the mistake that it says, and no other; what was run is not run again."""

import argparse
import math
import sys

import pytest
import torch
import torch.nn.functional as F

from customresnet.data.transforms.policy import CIFAR10_MEAN, CIFAR10_STD
from experiments import mistakes
from tests.conftest import read_json

TERMS = argparse.Namespace(source="digits", root=None, epochs=2, train_size=200, batch_size=64, width=8)
STEPS = 2 * math.ceil(200 / 64)


def prepare(name: str):
    return mistakes.prepare(mistakes.EXHIBITS[name], 0, TERMS)


def last_lr(name: str) -> tuple[float, int]:
    """The learning rate of the last step, and how many steps there were."""
    trainer, model, data = prepare(name)
    trained: list[float] = []
    model.optimizer_step = lambda epoch, batch, optimizer, closure: (  # type: ignore[method-assign]
        trained.append(optimizer.param_groups[0]["lr"]),
        optimizer.step(closure),
    )
    trainer.fit(model, data)
    return trained[-1], len(trained)


def batch_of(data, split: str) -> torch.Tensor:
    return next(iter(data.train_dataloader() if split == "train" else data.test_dataloader()))[0]


def test_softmax_before_the_loss_keeps_it_from_falling():
    _, model, _ = prepare("softmax before the loss")
    assert torch.allclose(model.net(torch.randn(4, 3, 32, 32)).sum(1), torch.ones(4))
    certain = F.cross_entropy(torch.eye(10), torch.arange(10))  # all right, and sure of it
    assert certain.item() == pytest.approx(math.log(math.e + 9) - 1)
    assert f"{certain:.2f}" in mistakes.EXHIBITS["softmax before the loss"].words


def test_another_std_is_for_test_images_alone():
    right, wrong = (prepare(name)[2] for name in (mistakes.NONE, "another std at test time"))
    assert torch.equal(batch_of(wrong, "train"), batch_of(right, "train"))
    std = torch.tensor(CIFAR10_STD).view(3, 1, 1)
    assert torch.allclose(batch_of(wrong, "test") * 0.5, batch_of(right, "test") * std, atol=1e-5)


def test_the_raw_mean_fills_one_hole_of_each_image():
    right, wrong = (batch_of(prepare(name)[2], "train") for name in (mistakes.NONE, "raw mean in the hole"))
    holes = (right == 0).all(1)
    assert holes.sum(dim=(1, 2)).eq(64).all()
    assert torch.equal(wrong[~holes[:, None].expand_as(wrong)], right[~holes[:, None].expand_as(right)])
    filled = wrong.movedim(1, -1)[holes]
    assert torch.allclose(filled, torch.tensor(CIFAR10_MEAN).expand_as(filled))


def test_the_schedules_end_where_they_say():
    lr_min, lr_max = 1e-4, 2e-3
    assert last_lr(mistakes.NONE) == (pytest.approx(lr_min), STEPS)
    lr, steps = last_lr("another horizon")
    assert steps == STEPS
    assert 0.9 * lr_max < lr <= lr_max
    assert last_lr("annihilated schedule") == (pytest.approx(lr_min / 10_000), STEPS)
    assert last_lr("dropped last batch") == (pytest.approx(lr_min), 2 * (200 // 64))


def test_the_control_draws_by_other_numbers_what_the_policy_allows():
    data = prepare("control: batch engine")[2]
    batch = batch_of(data, "train")
    assert (batch == 0).all(1).sum(dim=(1, 2)).eq(64).all()
    other = prepare(mistakes.NONE)[2]
    assert not torch.equal(batch, batch_of(other, "train"))
    assert torch.allclose(batch_of(data, "test"), batch_of(other, "test"), atol=1e-5)


def test_it_goes_on_where_it_stopped_and_counts_costs_seed_by_seed(tmp_path, monkeypatch, capsys):
    chosen = {name: mistakes.EXHIBITS[name] for name in (mistakes.NONE, "dropped last batch")}
    monkeypatch.setattr(mistakes, "EXHIBITS", chosen)
    output = tmp_path / "mistakes.json"
    words = ["mistakes.py", "--source", "digits", "--train_size", "200", "--batch_size", "64", "--width", "8"]
    words += ["--epochs", "1", "--output", str(output), "--seeds"]
    monkeypatch.setattr(sys, "argv", [*words, "1"])
    mistakes.main()
    first = read_json(output)["runs"]
    assert all(0 < runs["0"]["test/acc"] < 1 for runs in first.values())
    trained = []
    figures = iter([{"test/acc": 0.9}, {"test/acc": 0.7}, {"test/acc": 0.5}, {"test/acc": 0.5}])
    monkeypatch.setattr(mistakes, "train", lambda exhibit, seed, args: trained.append(seed) or next(figures))
    monkeypatch.setattr(sys, "argv", [*words, "2"])
    capsys.readouterr()
    mistakes.main()
    assert trained == [1, 1]  # seed 0 is done
    whole = read_json(output)["runs"]
    assert {name: runs["0"] for name, runs in whole.items()} == {name: runs["0"] for name, runs in first.items()}
    costs = [100 * (first[mistakes.NONE]["0"]["test/acc"] - first["dropped last batch"]["0"]["test/acc"]), 20.0]
    deviation = abs(costs[0] - costs[1]) / math.sqrt(2)
    assert f"{sum(costs) / 2:+.2f} ± {deviation:.2f}" in capsys.readouterr().out
    chosen["another horizon"] = mistakes.Exhibit("An exhibit that was not there yet.")
    mistakes.main()
    assert trained == [1, 1, 0, 1]  # only the new one
    monkeypatch.setattr(sys, "argv", [*words, "1", "--epochs", "2"])
    with pytest.raises(SystemExit):
        mistakes.main()
    assert "holds runs with another budget" in capsys.readouterr().err
