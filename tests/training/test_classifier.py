"""The classifier: its metrics, its optimizer, and what its checkpoints hold."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import customresnet
from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.commands import evaluate
from customresnet.runtime.errors import UserError
from customresnet.schedules.schedule import Schedule
from customresnet.training.metrics import MeanLoss
from tests.conftest import read_json


def fit(
    tmp_path, epochs: int = 1, callbacks: tuple[pl.Callback, ...] = (), **options
) -> tuple[Trainer, ImageClassifier]:
    """A short run on the digits through the Python API."""
    data = CIFAR10DataModule(source="digits", batch_size=128, seed=0)
    torch.manual_seed(0)
    model = ImageClassifier(width=4, lr_max=3e-3, lr_min=1e-4, **options)
    settings = {"precision": "32-true", "default_root_dir": str(tmp_path), "enable_progress_bar": False}
    trainer = Trainer(max_epochs=epochs, callbacks=list(callbacks), **settings)
    customresnet.fit(model, data, trainer, report=False)
    return trainer, model


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Trainer, ImageClassifier]:
    return fit(tmp_path_factory.mktemp("trained"))


def run_folder(trainer: Trainer) -> Path:
    return Path(trainer.log_dir)


def test_metrics_are_means_over_all_test_images(trained):
    trainer, model = trained
    data = trainer.datamodule.test_images
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
    images = torch.tensor((data.images.numpy() / 255 - mean) / std, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = model.eval().net(images).double().numpy()
    labels = data.labels.numpy()
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(360), labels]
    result = read_json(run_folder(trainer) / "result.json")
    assert result["test/loss"] == pytest.approx(losses.mean(), rel=1e-4)
    assert result["test/correct"] == (logits.argmax(1) == labels).sum()
    assert result["test/images"] == 360


def test_adam_follows_the_schedule(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer, model = trained
    events = EventAccumulator(trainer.log_dir, {"scalars": 0}).Reload()
    schedule = Schedule.from_policy(model.policy(), model.new_optimizer(), 12, 12)
    assert [e.value for e in events.Scalars("lr")] == pytest.approx(schedule.lr, rel=1e-6)
    assert [e.value for e in events.Scalars("lr-momentum")] == pytest.approx(schedule.momentum, rel=1e-6)
    optimizer = trainer.optimizers[0]
    assert type(getattr(optimizer, "optimizer", optimizer)) is torch.optim.Adam


def test_a_checkpoint_loads_without_its_run_and_holds_classes_and_normalization(trained):
    trainer, model = trained
    path = run_folder(trainer) / "checkpoints/last.ckpt"
    loaded = ImageClassifier.load_from_checkpoint(path, weights_only=True)
    assert loaded.preprocessing == trainer.datamodule.preprocessing
    assert loaded.preprocessing.classes == tuple("0123456789")
    assert loaded.preprocessing.source == "digits"
    images = torch.randn(5, 3, 32, 32)
    assert torch.equal(loaded.eval()(images), model.eval()(images))
    plain = torch.load(path, weights_only=True)
    assert plain["hyper_parameters"]["lr_max"] == 3e-3


def test_a_checkpoint_of_the_command_line_loads_without_its_run(small_run):
    path = small_run / "checkpoints/last.ckpt"
    loaded = ImageClassifier.load_from_checkpoint(path, weights_only=True)
    assert loaded.hparams["width"] == 8
    assert loaded.hparams["lr_max"] == read_json(small_run / "lr_find.json")["lr_max"]
    assert loaded(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_other_data_or_another_network_than_the_checkpoints_is_refused(trained):
    trainer, _ = trained
    path = str(run_folder(trainer) / "checkpoints/last.ckpt")
    other = Trainer(precision="32-true", enable_progress_bar=False, logger=False)
    half = CIFAR10DataModule(source="digits", mean=(0.5, 0.5, 0.5))
    with pytest.raises(UserError, match=r"`mean`: received \[0\.5.*trained with \[0\.4914"):
        evaluate.test(ImageClassifier(width=4), half, other, ckpt_path=path)
    with pytest.raises(UserError, match="`width`: received 8, but the checkpoint was trained with 4"):
        evaluate.test(ImageClassifier(width=8), CIFAR10DataModule(source="digits"), other, ckpt_path=path)
    with pytest.raises(UserError, match="the data has 10 classes; received"):
        customresnet.fit(ImageClassifier(width=4, num_classes=7), CIFAR10DataModule(source="digits"), other)


def test_a_model_and_a_trainer_can_be_used_again(tmp_path):
    trainer, model = fit(tmp_path)
    logged = read_json(run_folder(trainer) / "result.json")
    evaluated = evaluate.test(model, trainer.datamodule, trainer, ckpt_path="last")  # type: ignore[attr-defined]
    assert evaluated["checkpoint"].endswith("customresnet/version_0/checkpoints/last.ckpt")
    assert evaluated["test/loss"] == pytest.approx(logged["test/loss"], rel=1e-5)
    assert trainer.logger is not None
    again = Trainer(max_epochs=2, precision="32-true", default_root_dir=str(tmp_path), enable_progress_bar=False)
    customresnet.fit(model, CIFAR10DataModule(source="digits", batch_size=128, seed=0), again, report=False)
    assert read_json(run_folder(again) / "result.json")["steps"] == 24


def test_training_changes_every_weight(trained):
    _, model = trained
    torch.manual_seed(0)
    before = ImageClassifier(width=4).state_dict()
    same = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert same == []


class OperatorCounter(TorchDispatchMode, pl.Callback):
    """Count the operators of each training step, including those of the trainer and the callbacks."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Counter] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.steps[-1][operator.name().partition(".")[0]] += 1
        return operator(*args, **(kwargs or {}))

    def on_train_batch_start(self, *_):
        self.steps.append(Counter())
        self.__enter__()

    def on_train_batch_end(self, *_):
        self.__exit__(None, None, None)


def test_training_steps_read_no_value_from_the_device(tmp_path):
    """Each such read would wait until a GPU has finished all its work."""
    counter = OperatorCounter()
    fit(tmp_path, callbacks=(counter,))
    assert len(counter.steps) == 12
    assert all(step["aten::convolution"] for step in counter.steps)
    assert [step["aten::_local_scalar_dense"] for step in counter.steps] == [0] * 12


def test_mean_loss_weights_batches_by_images_and_keeps_nan():
    loss = MeanLoss()
    loss.update(torch.tensor(1.0), 512)
    loss.update(torch.tensor(3.0), 336)
    assert loss.compute().item() == pytest.approx((512 * 1 + 336 * 3) / 848)
    loss.update(torch.tensor(float("nan")), 512)
    assert loss.compute().isnan()
    loss.reset()
    loss.update(torch.tensor(2.0), 1)
    assert loss.compute().item() == 2.0


def test_activations_are_channels_last_and_parameters_contiguous():
    model = ImageClassifier(width=8)
    assert all(parameter.is_contiguous() for parameter in model.parameters())  # view(-1) works, as in pruning
    seen = []
    model.net.prep[0].register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    model(torch.randn(2, 3, 32, 32))
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in seen[0])


def test_predict_step_returns_the_softmax_of_the_logits():
    model = ImageClassifier(width=4)
    torch.nn.init.normal_(model.net.head.weight)
    images = torch.randn(3, 3, 32, 32)
    logits = model.eval()(images).detach().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(model.predict_step(images, 0).detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "`width` must be at least 1; received 0"),
        ({"dropout": 1.0}, "`dropout` must be at least 0 and below 1; received 1.0"),
        ({"lr_max": float("nan")}, "`lr_max` must be positive; received nan"),
        ({"lr_min": -1.0}, "`lr_min` must be positive; received -1.0"),
        ({"peak_epoch": 0}, "`peak_epoch` must be positive; received 0"),
        ({"lr_max": 1e-3, "lr_min": 1e-2}, "`lr_max` 0.001 is below `lr_min` 0.01"),
        ({"momentum": (0.9, 1.0)}, "`momentum`"),
        ({"weight_decay": -1.0}, "`weight_decay` must be at least 0; received -1.0"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ImageClassifier(**options)


@pytest.mark.parametrize("compile", [True, False, "auto"])
def test_compile_true_compiles_the_network_and_is_recorded(tmp_path, monkeypatch, compile):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network, **options: compiled.append(network))
    trainer, model = fit(tmp_path, compile=compile)
    assert compiled == ([model.net] if compile is True else [])
    assert read_json(run_folder(trainer) / "result.json")["compiled"] is (compile is True)
