"""Helpers that query Lightning's Trainer and modules, and count a run's steps before Lightning does."""

import math
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BatchSizeFinder, LearningRateFinder
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from customresnet.data.batches import batch_size_per_process, derive_seed
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runtime.errors import UserError


def is_fast_dev_run(trainer: pl.Trainer) -> bool:
    """Whether the run only checks the code with a few batches."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set without a declared type


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """The trainer's callbacks; changing the list changes the trainer's."""
    return trainer.callbacks  # type: ignore[attr-defined]  # set without a declared type


def attached_trainer(module: pl.LightningModule) -> pl.Trainer | None:
    """A module's Trainer; None if it has none, for example in load_from_checkpoint."""
    try:
        return module.trainer
    except RuntimeError:
        return None


def attached_data(module: pl.LightningModule) -> CIFAR10DataModule | None:
    """The data of a module's Trainer, if it is this project's data module."""
    trainer = attached_trainer(module)
    return datamodule_of(trainer) if trainer else None


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


def count_batches(images: int, batch_size: int, limit: int | float | None, processes: int) -> int:
    """Batches of ``images``, given a `limit_*_batches` (1.0 means all, 1 means one)."""
    whole = math.ceil(math.ceil(images / processes) / batch_size_per_process(batch_size, processes))
    if limit is None:
        return whole
    return min(whole, limit) if isinstance(limit, int) else int(whole * limit)


def count_evaluated(images: int, batch_size: int, limit: int | float | None, processes: int) -> int:
    """How many of ``images`` an evaluation covers, given a `limit_*_batches`."""
    return min(images, count_batches(images, batch_size, limit, processes) * batch_size)


def steps_per_epoch(trainer: pl.Trainer, images: int, batch_size: int) -> int:
    """Optimizer steps in an epoch of ``images`` training images."""
    batches = count_batches(images, batch_size, trainer.limit_train_batches, trainer.world_size)
    if batches < 1:
        raise UserError(f"`limit_train_batches` {trainer.limit_train_batches} leaves no training batches")
    return math.ceil(batches / trainer.accumulate_grad_batches)


def total_steps(trainer: pl.Trainer, per_epoch: int) -> float:
    """Optimizer steps in the whole run, from `max_epochs` and `max_steps`; infinite without either."""
    epochs = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs or 0
    total = per_epoch * epochs
    return total if trainer.max_steps == -1 else min(total, trainer.max_steps)
