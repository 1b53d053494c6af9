"""Count the batches, steps and images of a run before Lightning does."""

import math

import pytorch_lightning as pl

from customresnet.runtime.errors import UserError


def count_batches(images: int, batch_size: int, limit: int | float | None, processes: int) -> int:
    """Batches of ``images`` per process, given a `limit_*_batches` (1.0 means all, 1 means one)."""
    whole = math.ceil(math.ceil(images / processes) / batch_size)
    if limit is None:
        return whole
    return min(whole, limit) if isinstance(limit, int) else int(whole * limit)


def count_evaluated(images: int, batch_size: int, limit: int | float | None, processes: int) -> int:
    """How many of ``images`` an evaluation covers, given a `limit_*_batches`."""
    return min(images, count_batches(images, batch_size, limit, processes) * batch_size * processes)


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
