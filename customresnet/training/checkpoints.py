"""The checkpoints of a run: written durably after every epoch, at its start and when it is told to end."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException

from customresnet.runs.checkpoint import load_plain, read_weights
from customresnet.runs.durable import previous, write_checkpoint
from customresnet.runs.folders import LAST, WEIGHTS_SUFFIX
from customresnet.runs.state import check_progress
from customresnet.runtime.files import shown
from customresnet.training.lightning import callbacks_of, is_fast_dev_run


class CheckpointFiles(TorchCheckpointIO):
    """Write checkpoints durably; read them, and the weights files of this project.

    Attributes:
        training: Whether a run is training. A failed write is then a warning, so that the run goes on.
        failure: Why the newest write failed; None if it did not.
    """

    def __init__(self) -> None:
        self.training = False
        self.failure: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        if not all(bool(torch.isfinite(tensor).all()) for tensor in checkpoint["state_dict"].values()):
            print(f"warning: {shown(Path(path))} was not written: weights are not finite", file=sys.stderr)
            return
        try:
            write_checkpoint(checkpoint, Path(path))
            self.failure = None
        except OSError as error:
            if not self.training:
                raise
            self.failure = error
            print(
                f"warning: could not write {shown(Path(path))} ({error.strerror or error}); training continues, and "
                "the next epoch's is written if possible",
                file=sys.stderr,
            )

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if Path(path).suffix == WEIGHTS_SUFFIX:
            return read_weights(Path(path))
        return super().load_checkpoint(path, *args, **kwargs) if "://" in str(path) else load_plain(Path(path))


def check_progress_of(trainer: pl.Trainer, metrics: Any, checkpoint: dict[str, Any]) -> None:
    """Check that a run can take its progress, and the state of its callbacks and training metrics, from a checkpoint.

    Raises:
        UserError: A value is missing, or does not fit.
    """
    callbacks = {callback.state_key: callback.state_dict() for callback in callbacks_of(trainer)}
    own_metrics = {name: metric.metric_state for name, metric in metrics.items()}
    check_progress(checkpoint, trainer.fit_loop.state_dict(), callbacks, own_metrics)


class RunCheckpoint(ModelCheckpoint):
    """This project's ModelCheckpoint: under another name, its state is not mixed up with a user's ModelCheckpoint."""

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        # Lightning would resume after the last batch without the epoch's evaluation; the epoch's checkpoint follows
        if not trainer.is_last_batch:
            super().on_train_batch_end(trainer, *args, **kwargs)

    @property
    def path(self) -> Path:
        return Path(self.dirpath or ".") / f"{self.filename}.ckpt"


class FirstAndLastSteps(pl.Callback):
    """Save ``last.ckpt`` before the first step, and at once when SIGTERM ends the run."""

    evaluating = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(trainer.strategy.checkpoint_io, CheckpointFiles):
            trainer.strategy.checkpoint_io.training = True
        if trainer.ckpt_path is None:  # a run killed in its first epoch can be resumed, with the bounds that it found
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):  # raised between two steps, or in an evaluation
            self.evaluating = trainer.validating
            self._save(trainer)
            self.evaluating = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.evaluating:  # make Lightning repeat the whole evaluation, or it would skip the rest
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            progress.update(total=begun, current=dict(begun), is_last_batch=False)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if isinstance(trainer.strategy.checkpoint_io, CheckpointFiles):
            trainer.strategy.checkpoint_io.training = False

    def _save(self, trainer: pl.Trainer) -> None:
        path = last_checkpoint_path(trainer)
        if path and not is_fast_dev_run(trainer):
            trainer.save_checkpoint(path)


def checkpoint_callback(name: str, **kwargs: Any) -> RunCheckpoint:
    """Keep one checkpoint file, which each save replaces."""
    return RunCheckpoint(filename=name, enable_version_counter=False, **{"save_on_train_epoch_end": True, **kwargs})


def last_checkpoint_path(trainer: pl.Trainer) -> Path | None:
    """Where the run writes ``last.ckpt``; None if it writes no checkpoints."""
    own = (callback for callback in callbacks_of(trainer) if isinstance(callback, RunCheckpoint))
    return next((callback.path for callback in own if callback.path.name == LAST), None)


def drop_previous(trainer: pl.Trainer) -> None:
    """Delete the second newest checkpoints of a finished run."""
    for callback in callbacks_of(trainer):
        if isinstance(callback, RunCheckpoint) and trainer.is_global_zero and callback.path.is_file():
            previous(callback.path).unlink(missing_ok=True)


def rescue_checkpoint(trainer: pl.Trainer) -> str | None:
    """If the newest checkpoint could not be written, write it wherever possible.

    Returns:
        What to tell the user; None if every checkpoint was written.
    """
    files, path = trainer.strategy.checkpoint_io, last_checkpoint_path(trainer)
    if not isinstance(files, CheckpointFiles) or files.failure is None or path is None:
        return None
    name = f"{getattr(trainer, 'run_name', 'run')}-{LAST}"
    for place in (path, Path(trainer.default_root_dir) / name, Path(tempfile.gettempdir()) / name):
        try:
            trainer.save_checkpoint(place)
        except OSError:
            continue
        if place == path:
            return None
        return f"{path} could not be written; the trained network is in {place}"
    return (
        f"the trained network could not be written anywhere ({files.failure}): neither {path.parent} nor {place.parent}"
    )
