"""The plan of a run: refuse callbacks that would break it, and determine why a run ended."""

import math
from typing import Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
    Timer,
)

from customresnet.runs.files import EpochMetrics
from customresnet.runtime.errors import UserError
from customresnet.training.lightning import callbacks_of

Ending = Literal["completed", "max_time", "early_stopping", "interrupted", "diverged", "stopped"]
"""Why a run ended; see ``customresnet.runs.files``."""

REFUSED: dict[type[pl.Callback], str] = {
    GradientAccumulationScheduler: "changes the number of steps during the run: use `accumulate_grad_batches`",
    BatchSizeFinder: "changes the number of steps after the schedule is built: find the size first, pass `batch_size`",
    LearningRateFinder: "does not work with OneCycleLR: fit and lr-find find the learning rates themselves",
    StochasticWeightAveraging: "replaces the learning-rate policy: use WeightAveraging",
}
"""Callbacks that break the plan of a run, and what to do instead."""


def refuse_callbacks(trainer: pl.Trainer, metrics: set[str]) -> None:
    """Raise a UserError for a callback that breaks the plan, or that monitors a metric that is not in ``metrics``."""
    for callback in callbacks_of(trainer):
        name, monitor = type(callback).__name__, getattr(callback, "monitor", None)
        for kind, reason in REFUSED.items():
            if isinstance(callback, kind):
                raise UserError(f"`callbacks`: {name} {reason}")
        if isinstance(monitor, str) and monitor not in metrics:
            known = ", ".join(sorted(metrics))
            raise UserError(f"`callbacks`: {name} monitors {monitor}, which this run does not log; it logs {known}")


def logged_metrics(*, held_out: bool) -> set[str]:
    """The metrics that a run logs after each epoch."""
    stages = ("train", "val") if held_out else ("train", "test")
    return {f"{stage}/{name}" for stage in stages for name in ("loss", "acc")}


def ending(trainer: pl.Trainer, last: EpochMetrics, planned_steps: int) -> Ending:
    """Why training ended, after the epoch with these metrics."""
    callbacks = callbacks_of(trainer)
    if not math.isfinite(last.get("train/loss", 0.0)):
        return "diverged"
    if trainer.global_step >= planned_steps:
        return "completed"
    if trainer.interrupted:
        return "interrupted"
    if any(isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0 for callback in callbacks):
        return "max_time"
    if trainer.should_stop and any(isinstance(callback, EarlyStopping) for callback in callbacks):
        return "early_stopping"
    return "stopped"
