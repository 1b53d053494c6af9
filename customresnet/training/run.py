"""Steps shared by the commands with a trainer: the run's folder, its images, its opening lines."""

import csv
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs.checkpoint import read_checkpoint
from customresnet.runs.folders import (
    CHECKPOINTS,
    RESULT,
    find_checkpoint,
    is_finished,
    last_checkpoint,
    run_folder,
    versions,
)
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import make_folder, shown
from customresnet.training.checkpoints import RunCheckpoint, last_checkpoint_path
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lightning import callbacks_of, is_fast_dev_run, log_folder, tensorboard_loggers
from customresnet.training.logger import RunLogger, failures_as_warnings
from customresnet.training.messages import announce, opening_lines, write_errors_as_warnings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def resolve_checkpoint(trainer: pl.Trainer, ckpt_path: str, *, unfinished: bool = False) -> Path:
    """The checkpoint that `ckpt_path` names; ``last`` considers only runs with the trainer's run name."""
    name = getattr(trainer, "run_name", None)
    return find_checkpoint(ckpt_path, Path(trainer.default_root_dir), name, unfinished=unfinished)


def resume_run(trainer: pl.Trainer, ckpt_path: str) -> Path:
    """Find the checkpoint of an unfinished run, and continue to log into its folder.

    Raises:
        UserError: There is no such run, or it is finished.
    """
    checkpoint = resolve_checkpoint(trainer, ckpt_path, unfinished=True)
    folder = run_folder(checkpoint)
    if is_finished(folder):
        raise UserError(f"`ckpt_path` {checkpoint}: this run is finished; see {folder / RESULT}")
    runs = versions(folder.parents[2], folder.parent.name) if ckpt_path == "last" else [folder]
    for run in runs[runs.index(folder) + 1 :]:
        if not last_checkpoint(run).is_file():
            announce(trainer, f"note: {shown(run)} ended before its first checkpoint; resuming {folder.name}")
    log_into(trainer, folder, read_checkpoint(checkpoint)["global_step"])
    return checkpoint


def log_into(trainer: pl.Trainer, folder: Path, step: int | None = None) -> None:
    """Make the loggers that write files continue in the folder of an existing run, from ``step`` on."""
    if not folder.name.startswith("version_"):  # not a run's
        return
    loggers: list[Logger] = []
    wait_for_a_new_second(folder)
    if step == 0:  # TensorBoard's files are written again; it would show two graphs
        for file in folder.glob("events.out.tfevents.*"):
            file.unlink()
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger = RunLogger(str(folder.parent), "", folder.name, default_hp_metric=False, purge_step=step)
        elif isinstance(logger, CSVLogger):
            logger = resumed_csv_logger(folder, step or 0)
        loggers.append(logger)
    trainer.loggers = loggers


def wait_for_a_new_second(folder: Path) -> None:
    """TensorBoard reads the files of a run in the order of the seconds in their names."""
    seconds = {file.name.split(".")[3] for file in folder.glob("events.out.tfevents.*")}
    while str(int(time.time())) in seconds:
        time.sleep(0.05)


def resumed_csv_logger(folder: Path, step: int) -> CSVLogger:
    """A CSVLogger that continues its metrics.csv at ``step``; a new one would delete it."""
    path = folder / "metrics.csv"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    rows = [row for row in csv.DictReader(lines) if str(row.get("step")).isdecimal() and None not in row]
    logger = CSVLogger(str(folder.parent), "", folder.name)
    logger.experiment.metrics = [row for row in rows if int(row["step"]) < step]
    logger.save()
    return logger


def start_run(trainer: pl.Trainer, model: ImageClassifier, datamodule: CIFAR10DataModule) -> None:
    """Create the run's folder and print the opening lines. The images must have been read."""
    make_log_folder(trainer)
    announce(trainer, opening_lines(trainer, model, datamodule))


@contextmanager
def discard_failed_start(trainer: pl.Trainer) -> Iterator[None]:
    """Delete the run's folder if an error ends the run before its first step, or a signal before its checkpoint."""
    try:
        yield
    except BaseException as error:
        folder, checkpoint = log_folder(trainer), last_checkpoint_path(trainer)
        started = trainer.global_step > 0 or (checkpoint and checkpoint.is_file() and not isinstance(error, Exception))
        if not started and folder and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.finalize("failed")
            shutil.rmtree(folder, ignore_errors=True)
        raise


def read_images(datamodule: CIFAR10DataModule) -> None:
    """Download the images if needed, and read them."""
    datamodule.prepare_data()
    datamodule.setup("fit")


def make_log_folder(trainer: pl.Trainer) -> None:
    """Create the run's folder, also for checkpoints, or raise a UserError if it cannot be written to."""
    folder = log_folder(trainer)
    if folder is None or is_fast_dev_run(trainer):
        return
    if trainer.is_global_zero:
        make_folder(folder, "`default_root_dir`")
    for callback in callbacks_of(trainer):
        if isinstance(callback, RunCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder.resolve() / CHECKPOINTS)


def show_figure(trainer: pl.Trainer, name: str, title: str, draw: Callable[[], "Figure"]) -> None:
    """Write a figure to the run's folder and to TensorBoard."""
    folder = log_folder(trainer)
    if folder is None or not trainer.is_global_zero:
        return
    figure = draw()
    with write_errors_as_warnings(trainer, name):
        figure.savefig(folder / name, dpi=150)
        announce(trainer, f"plot: {shown(folder / name)}")
    for logger in tensorboard_loggers(trainer):
        with failures_as_warnings(logger):
            logger.experiment.add_figure(title, figure)
            logger.experiment.flush()


def require_own_processes(trainer: pl.Trainer) -> None:
    """Raise a UserError for strategies whose processes do not return the trained model."""
    if "MultiProcessing" in type(trainer.strategy.launcher).__name__:
        raise UserError("`strategy` spawn, fork and notebook do not return the run's record: use ddp")


def require_single_device(trainer: pl.Trainer, what: str) -> None:
    if trainer.world_size > 1:
        raise UserError(
            f"{what} runs on one device; received {trainer.world_size}: find the learning rates with `devices` 1, "
            "then pass `lr_max` and `lr_min`"
        )


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
