"""Pieces that every command with a trainer starts with: the run's folder, its images, its opening lines."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs.folders import LOGS, RESULT, find_checkpoint, is_finished, run_folder
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import make_folder, shown
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lightning import is_fast_dev_run
from customresnet.training.messages import announce, opening_lines
from customresnet.training.trainer import tensorboard_logger

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def resolve_checkpoint(trainer: pl.Trainer, ckpt_path: str, *, unfinished: bool = False) -> Path:
    """The checkpoint that `ckpt_path` names; ``last`` is one of the trainer's run name."""
    name = getattr(trainer, "run_name", None)
    return find_checkpoint(ckpt_path, Path(trainer.default_root_dir), name, unfinished=unfinished)


def resume_run(trainer: pl.Trainer, ckpt_path: str) -> Path:
    """Find the checkpoint of an unfinished run, and log into that run's folder from now on.

    Raises:
        UserError: There is no such run, or it is finished.
    """
    checkpoint = resolve_checkpoint(trainer, ckpt_path, unfinished=True)
    folder = run_folder(checkpoint)
    if is_finished(folder):
        raise UserError(f"`ckpt_path` {checkpoint}: this run is finished; see {folder / RESULT}")
    log_into(trainer, folder)
    return checkpoint


def log_into(trainer: pl.Trainer, folder: Path) -> None:
    """Log into an existing run's folder; a folder outside lightning_logs is no run's."""
    if isinstance(trainer.logger, TensorBoardLogger) and folder.parent.parent.name == LOGS:
        trainer.logger = tensorboard_logger(folder.parents[2], folder.parent.name, folder.name)


def start_run(trainer: pl.Trainer, model: ImageClassifier, datamodule: CIFAR10DataModule) -> None:
    """Make the run's folder and say what is trained, on what, and where. The images must have been read."""
    make_log_folder(trainer)
    announce(trainer, opening_lines(trainer, model, datamodule))


@contextmanager
def discard_failed_start(trainer: pl.Trainer) -> Iterator[None]:
    """Delete the run's folder if an error ends the run before its first step."""
    try:
        yield
    except Exception:
        if trainer.global_step == 0 and trainer.logger is not None and trainer.is_global_zero:
            trainer.logger.finalize("failed")
            shutil.rmtree(trainer.logger.log_dir or "", ignore_errors=True)
        raise


def read_images(datamodule: CIFAR10DataModule) -> None:
    """Download the images if need be, and read them."""
    datamodule.prepare_data()
    datamodule.setup("fit")


def make_log_folder(trainer: pl.Trainer) -> None:
    """Make the logger's folder, or raise a UserError if it cannot be written to."""
    if trainer.logger is not None and not is_fast_dev_run(trainer) and trainer.is_global_zero:
        make_folder(Path(trainer.logger.log_dir or "."), "`default_root_dir`")


def show_figure(trainer: pl.Trainer, name: str, title: str, draw: Callable[[], "Figure"]) -> None:
    """Write a figure to the log folder and to TensorBoard."""
    if isinstance(trainer.logger, TensorBoardLogger):
        figure, path = draw(), Path(trainer.logger.log_dir) / name
        figure.savefig(path, dpi=150)
        announce(trainer, f"plot: {shown(path)}")
        trainer.logger.experiment.add_figure(title, figure)
        trainer.logger.experiment.flush()


def require_single_device(trainer: pl.Trainer, what: str) -> None:
    if trainer.world_size > 1:
        raise UserError(
            f"{what} runs on one device; received {trainer.world_size}: find the learning rates with `devices` 1, "
            "then pass `lr_max` and `lr_min`"
        )
