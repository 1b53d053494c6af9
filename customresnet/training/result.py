"""The result of a run, and why it ended."""

import math
import platform
from typing import Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, Timer

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.transforms.batch_backend import BatchBackend
from customresnet.runs.files import EpochMetrics, Result
from customresnet.runtime.hardware import device_name
from customresnet.training.callbacks.loss_guard import LossGuard
from customresnet.training.callbacks.recorder import RunRecorder
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lightning import callbacks_of, count_evaluated

Ending = Literal["completed", "max_time", "early_stopping", "interrupted", "diverged", "stopped"]
"""Why a run ended; see ``customresnet.runs.files``."""


def run_result(
    trainer: pl.Trainer,
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    recorder: RunRecorder,
    planned_steps: int,
) -> Result:
    """The content of result.json: the last metrics, how the run ended, learning rates, hardware and versions."""
    device = trainer.strategy.root_device
    by_batch = isinstance(datamodule.transforms(augment=True, device=device), BatchBackend)
    result: Result = {name: value for name, value in recorder.rows[-1].items() if "/" in name}  # type: ignore[assignment]
    if "test/acc" in result:
        limit = trainer.limit_test_batches if datamodule.val_size else trainer.limit_val_batches
        images = count_evaluated(len(datamodule.test_images), datamodule.batch_size, limit, trainer.world_size)
        result |= {"test/correct": round(result["test/acc"] * images), "test/images": images}
    seconds = recorder.seconds
    result |= {
        "ended": ending(trainer, recorder.rows[-1], planned_steps),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "planned_steps": planned_steps,
        "seconds": round(seconds, 1),
        "images_per_second": round(recorder.images / seconds, 1) if seconds else 0.0,
        "lr_max": model.hparams["lr_max"],
        "lr_min": model.hparams["lr_min"],
        "parameters": sum(p.numel() for p in model.net.parameters()),
        "seed": datamodule.seed,
        "engine": "batch" if by_batch else "albumentations",
        "precision": str(trainer.precision),
        "compiled": model.hparams["compile"] is True,
        "device": device_name(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "lightning": pl.__version__},
    }
    return result


def ending(trainer: pl.Trainer, last: EpochMetrics, planned_steps: int) -> Ending:
    """Why training ended, after the epoch with these metrics."""
    callbacks = callbacks_of(trainer)
    guards = (callback for callback in callbacks if isinstance(callback, LossGuard))
    if any(guard.diverged for guard in guards) or not math.isfinite(last.get("train/loss", 0.0)):
        return "diverged"
    if trainer.interrupted:  # perhaps in the last evaluation
        return "interrupted"
    if trainer.global_step >= planned_steps:
        return "completed"
    if any(isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0 for callback in callbacks):
        return "max_time"
    if trainer.should_stop and any(isinstance(callback, EarlyStopping) for callback in callbacks):
        return "early_stopping"
    return "stopped"
