"""The messages that a run prints."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytorch_lightning as pl

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs.files import EpochMetrics, Result
from customresnet.runtime.formatting import counted, data_name, duration, percent
from customresnet.runtime.hardware import device_name
from customresnet.training.lightning import count_evaluated

if TYPE_CHECKING:
    from customresnet.training.classifier import ImageClassifier


ENDINGS = {
    "max_time": "stopped by max_time",
    "early_stopping": "stopped by EarlyStopping",
    "interrupted": "interrupted",
    "diverged": "diverged: the training loss is not finite or exploded; lower LRMAX (--model.lr_max). Training ended",
}


parameter_names: ContextVar[Callable[[str], str]] = ContextVar("parameter_names", default=str)
"""How a message names parameters: in backticks, unless the command line replaces these by its flags."""


def announce(trainer: pl.Trainer, text: str) -> None:
    """Print in the first process, above any progress bar."""
    if not trainer.is_global_zero:
        return
    text = parameter_names.get()(text) if "`" in text else text
    bar = trainer.progress_bar_callback
    (bar.print if bar else print)(text)


@contextmanager
def write_errors_as_warnings(trainer: pl.Trainer, what: str) -> Iterator[None]:
    """Print a warning instead of raising an OSError: what is recorded must not end what is trained."""
    try:
        yield
    except OSError as error:
        announce(trainer, f"warning: could not write {what} ({error.strerror or error})")


def opening_lines(trainer: pl.Trainer, model: "ImageClassifier", datamodule: CIFAR10DataModule) -> str:
    """The network, the data, the transforms and the device."""
    train, test, device = datamodule.train_images, datamodule.test_images, trainer.strategy.root_device
    parameters = sum(p.numel() for p in model.net.parameters())
    held_out = f", {datamodule.val_size:,} validation" if datamodule.val_size else ""
    reason = getattr(trainer, "precision_reason", "as given")
    mirrored = datamodule.source == "digits" and datamodule.augment.flip
    return "\n".join(
        [
            f"network: {type(model.net).__name__}, {parameters:,} parameters",
            f"data: {data_name(datamodule.source, datamodule.root)}, {len(train):,} training{held_out} and "
            f"{len(test):,} test images, {len(train.classes)} classes",
            *datamodule.notes,
            *(["note: flips mirror the digits (augment.flip)"] if mirrored else []),
            f"training images: {datamodule.transforms(augment=True, device=device)}",
            f"test images: {datamodule.transforms(augment=False, device=device)}",
            f"device: {device_name(device)}; precision {trainer.precision} ({reason})",
        ]
    )


def epoch_line(row: EpochMetrics, trainer: pl.Trainer, datamodule: CIFAR10DataModule | None) -> str:
    """One epoch, or part of one: the LR of its last step, and loss and accuracy in training and evaluation."""
    width = len(str(trainer.max_epochs))
    line = f"epoch {row['epoch']:>{width}.4g}/{trainer.max_epochs}  lr {row['lr']:.2e}"
    for stage in ("train", "val", "test"):
        if {f"{stage}/loss", f"{stage}/acc"} <= row.keys():
            accuracy = percent(row[f"{stage}/acc"])
            if datamodule and stage != "train":
                images = datamodule.val_size if stage == "val" else len(datamodule.test_images)
                total = count_evaluated(images, datamodule.batch_size, trainer.limit_val_batches, trainer.world_size)
                accuracy = counted(row[f"{stage}/acc"], total)
            line += f"  {stage} loss {row[f'{stage}/loss']:.4f} acc {accuracy}"
    return line


def closing_lines(result: Result) -> str:
    """The accuracy of a finished run, its time and its speed."""
    lines = []
    if result["ended"] != "completed":
        reason = ENDINGS.get(result["ended"], "stopped")
        lines.append(f"{reason} after {result['steps']:,} of {result['planned_steps']:,} planned steps")
    tested = "test/acc" in result
    accuracy = counted(result["test/acc"], result["test/images"]) if tested else ""
    lines.append(f"test accuracy of the last epoch: {accuracy}" if tested else "not evaluated")
    epochs = "1 epoch" if result["epochs"] == 1 else f"{result['epochs']} epochs"
    speed = f"{result['images_per_second']:.0f} images/s"
    lines.append(f"{epochs} in {duration(result['seconds'])}, including evaluations ({speed})")
    return "\n".join(lines)


def evaluation_line(stage: str, metrics: Mapping[str, float], images: int) -> str:
    """Accuracy and loss of one evaluation over ``images`` images."""
    return f"{stage} accuracy {counted(metrics[f'{stage}/acc'], images)}, loss {metrics[f'{stage}/loss']:.4f}"
