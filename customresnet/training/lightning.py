"""Helpers that query Lightning's Trainer and modules."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BatchSizeFinder, LearningRateFinder
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from customresnet.data.batches import derive_seed
from customresnet.data.datamodule import CIFAR10DataModule


def is_fast_dev_run(trainer: pl.Trainer) -> bool:
    """Whether the run only checks the code with a few batches."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set without a declared type


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """The trainer's callbacks; changing the list changes the trainer's."""
    return trainer.callbacks  # type: ignore[attr-defined]  # set without a declared type


def is_tuning(trainer: pl.Trainer) -> bool:
    """Whether a Tuner is running, which sets the learning rate itself."""
    return any(isinstance(callback, LearningRateFinder | BatchSizeFinder) for callback in callbacks_of(trainer))


def datamodule_of(trainer: pl.Trainer) -> CIFAR10DataModule | None:
    """The trainer's data module if it is this project's."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, CIFAR10DataModule) else None


def log_folder(trainer: pl.Trainer) -> Path | None:
    """The run's folder: that of the first logger that writes files. Without one, a run writes only checkpoints."""
    folders = [logger.log_dir for logger in trainer.loggers if isinstance(logger, TensorBoardLogger | CSVLogger)]
    return Path(folders[0]) if folders else None


def tensorboard_loggers(trainer: pl.Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def seed_batch(module: pl.LightningModule, batch_idx: int) -> None:
    """Seed torch by (seed, epoch, rank, batch), so that a resumed run has the dropout of an uninterrupted one."""
    data = datamodule_of(module.trainer)
    seed = data.seed if data else 0
    torch.manual_seed(derive_seed(seed, module.current_epoch, module.global_rank, batch_idx))


def can_fuse_optimizer(module: pl.LightningModule) -> bool:
    """Whether torch's fused optimizers work here: Lightning cannot clip their gradients in mixed precision."""
    return module.trainer.gradient_clip_val is None and module.device.type in ("cpu", "cuda")
