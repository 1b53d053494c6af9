"""The module and the data module with Lightning's own Trainer."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

import customresnet
from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.runtime.errors import UserError
from customresnet.training.callbacks.recorder import RunRecorder
from customresnet.training.lightning import callbacks_of
from tests.conftest import read_json

OPTIONS = {"accelerator": "cpu", "devices": 1, "precision": "32-true", "enable_progress_bar": False}


def digits(**options) -> CIFAR10DataModule:
    return CIFAR10DataModule(source="digits", batch_size=128, seed=0, **options)


def seeded_model(**options) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(width=4, dropout=0.1, **options)


@pytest.mark.parametrize("engine", ["albumentations", "batch"])
def test_a_plain_trainer_trains_bit_identically_to_fit(tmp_path, engine):
    bounds = {"lr_max": 3e-3, "lr_min": 1e-4}
    model = seeded_model(**bounds)
    ours = Trainer(max_epochs=2, default_root_dir=str(tmp_path), **OPTIONS)
    customresnet.fit(model, digits(engine=engine), ours, report=False)

    plain_model = seeded_model(**bounds)
    plain = pl.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_model_summary=False, **OPTIONS)
    plain.fit(plain_model, datamodule=digits(engine=engine))

    state, plain_state = model.net.state_dict(), plain_model.net.state_dict()
    assert [name for name in state if not torch.equal(state[name], plain_state[name])] == []
    assert plain.callback_metrics["test/acc"] == ours.callback_metrics["test/acc"]
    assert plain.global_step == ours.global_step == 24
    untrained = seeded_model().net.state_dict()
    assert not torch.equal(state["prep.0.weight"], untrained["prep.0.weight"])


def test_a_plain_trainer_without_bounds_is_refused(tmp_path):
    trainer = pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, default_root_dir=tmp_path, **OPTIONS)
    with pytest.raises(UserError, match=r"pass `lr_max` and `lr_min`.*customresnet\.fit"):
        trainer.fit(ImageClassifier(width=4), datamodule=digits())
    with pytest.raises(UserError, match="pass `lr_max` and `lr_min`"):  # one is not enough
        trainer.fit(ImageClassifier(width=4, lr_max=1e-3), datamodule=digits())


def test_a_plain_trainer_with_fast_dev_run_needs_no_bounds(tmp_path):
    trainer = pl.Trainer(fast_dev_run=True, default_root_dir=tmp_path, **OPTIONS)
    trainer.fit(ImageClassifier(width=4), datamodule=digits())
    assert trainer.global_step == 1


def test_fit_takes_a_plain_trainer(tmp_path):
    """It gets a recorder, which writes epochs.csv."""
    logger = pl.loggers.TensorBoardLogger(tmp_path)
    trainer = pl.Trainer(max_epochs=1, logger=logger, log_every_n_steps=10, enable_model_summary=False, **OPTIONS)
    result = customresnet.fit(seeded_model(lr_max=3e-3, lr_min=1e-4), digits(), trainer, report=False)
    folder = Path(logger.log_dir)
    assert read_json(folder / "result.json") == result
    assert len((folder / "epochs.csv").read_text().splitlines()) == 2
    assert sum(isinstance(callback, RunRecorder) for callback in callbacks_of(trainer)) == 1
