"""The optimizer that the options name: what it decays, and what the loss to minimize is."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

import customresnet
from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.runtime.errors import UserError
from customresnet.training.optimizer import build_optimizer


def step_without_gradient(**options: Any) -> tuple[nn.Sequential, nn.Sequential]:
    """A network before and after a step whose gradients are all zero."""
    torch.manual_seed(0)
    net, before = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    before.load_state_dict(net.state_dict())
    optimizer = build_optimizer(net, {"optimizer": "adam", "beta2": 0.9, **options}, lr=0.1)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return before, net


def test_decoupled_weight_decay_shrinks_weights_and_nothing_else() -> None:
    before, after = step_without_gradient(weight_decay=0.5, decoupled=True)
    torch.testing.assert_close(after[0].weight, before[0].weight * (1 - 0.1 * 0.5))
    for (_, old), (name, new) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        assert name == "0.weight" or torch.equal(old, new)


def test_coupled_weight_decay_is_an_l2_penalty_which_adam_normalizes() -> None:
    before, after = step_without_gradient(weight_decay=1e-3, decoupled=False)
    # the penalty is the only gradient, so Adam's first step is lr in its direction, whatever its size
    torch.testing.assert_close(after[0].weight, before[0].weight - 0.1 * before[0].weight.sign(), atol=1e-3, rtol=0)


def test_no_decay_is_plain_adam() -> None:
    for decoupled in (False, True):
        model = ImageClassifier(width=4, lr_max=0.1, lr_min=0.01, decoupled=decoupled, beta2=0.99)
        optimizer = model.new_optimizer()
        assert type(optimizer) is torch.optim.Adam
        assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.99)]


def test_label_smoothing_changes_the_loss_to_minimize_but_not_the_logged_one() -> None:
    model = ImageClassifier(width=4, lr_max=0.1, lr_min=0.01, label_smoothing=0.2)
    torch.manual_seed(1)
    nn.init.normal_(model.net.head.weight)
    batch = torch.randn(6, 3, 32, 32), torch.arange(6)
    logged: dict[str, Any] = {}
    model.log_dict = lambda metrics, **_: logged.update(metrics)  # type: ignore[method-assign]
    model.eval()
    loss = model.training_step(batch, 0)
    log_p = model(batch[0]).log_softmax(dim=1)
    plain = -log_p[torch.arange(6), batch[1]].mean()
    torch.testing.assert_close(loss, 0.8 * plain + 0.2 * -log_p.mean())
    torch.testing.assert_close(logged["train/loss"].compute(), plain)
    torch.testing.assert_close(plain, F.cross_entropy(model(batch[0]), batch[1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta2": 1.0}, "`beta2` must be at least 0 and below 1; received 1.0"),
        ({"label_smoothing": -0.1}, "`label_smoothing` must be at least 0 and below 1; received -0.1"),
        ({"decoupled": True, "optimizer": "sgd"}, "`decoupled` weight decay needs `optimizer` adam; received sgd"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageClassifier(width=4, **options)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("options", [{"optimizer": "sgd"}, {}, {"decoupled": True, "weight_decay": 0.1}])
def test_gradients_are_clipped_with_every_precision_and_optimizer(
    tmp_path: Path, precision: str, options: dict[str, Any]
) -> None:
    norms: list[float] = []

    class Norms(pl.Callback):
        def on_before_zero_grad(self, trainer: Any, pl_module: pl.LightningModule, optimizer: Any) -> None:
            gradients = [p.grad.float().norm() for p in pl_module.parameters() if p.grad is not None]
            norms.extend([float(torch.stack(gradients).norm())] if gradients else [])

    torch.manual_seed(0)
    data = CIFAR10DataModule(source="digits", batch_size=64, train_size=192, seed=0, engine="batch")
    model = ImageClassifier(width=4, lr_max=3e-3, lr_min=1e-4, momentum=None, **options)
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_epochs=1,
        precision=precision,
        gradient_clip_val=1e-3,
        callbacks=[Norms()],
        default_root_dir=str(tmp_path),
        **silent,
    )
    result = customresnet.fit(model, data, trainer, report=False)
    assert result is not None
    assert result["ended"] == "completed"
    assert norms
    assert max(norms) <= 1.01e-3
