"""fit: find the learning rates, train, evaluate, record and report."""

import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.models import check_network
from customresnet.runs.files import EpochMetrics, Result, read_record, write_result
from customresnet.runs.folders import FINISHED, LAST, is_finished, last_checkpoint, newest_run
from customresnet.runtime.errors import UnsavedError, UserError
from customresnet.runtime.files import shown
from customresnet.training.callbacks.recorder import RunRecorder
from customresnet.training.checkpoints import checkpoint_callback, drop_previous, rescue_checkpoint
from customresnet.training.classifier import FAST_DEV_RUN_LR, ImageClassifier
from customresnet.training.lightning import (
    callbacks_of,
    is_fast_dev_run,
    log_folder,
    steps_per_epoch,
    tensorboard_loggers,
    total_steps,
)
from customresnet.training.logger import failures_as_warnings
from customresnet.training.lr.bounds import LRRangeTest
from customresnet.training.lr.range_test import find_bounds
from customresnet.training.messages import announce, closing_lines, write_errors_as_warnings
from customresnet.training.options import check_schedule
from customresnet.training.result import run_result
from customresnet.training.run import (
    discard_failed_start,
    logged_metrics,
    read_images,
    refuse_callbacks,
    require_own_processes,
    resume_run,
    start_run,
)
from customresnet.training.trainer import Trainer

TERMINATED = 143
"""Exit code after SIGTERM: 128 plus its number, as shells have it."""


def fit(
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    trainer: pl.Trainer | None = None,
    ckpt_path: str | None = None,
    lr_find: LRRangeTest = LRRangeTest(),
    report: bool = True,
    auto_resume: bool = False,
    checkpoint_every_n_steps: int | None = None,
    checkpoint_every_minutes: float | None = None,
) -> Result | None:
    """Find the learning rates, train, and evaluate after every epoch.

    Args:
        model: The classifier to train.
        datamodule: Its data.
        trainer: The Trainer. Default: ``customresnet.Trainer()``.
        ckpt_path: Resume a run: last (the newest unfinished one of this name), a checkpoint or a run's folder.
        lr_find: The LR range test, which finds the learning rates that are not given; skipped when a run is resumed.
        report: Write the report after training.
        auto_resume: Resume the newest run of this name if it is unfinished, do nothing if it is finished, and start a
            run if there is none.
        checkpoint_every_n_steps: Also write last.ckpt after every N optimizer steps.
        checkpoint_every_minutes: Also write last.ckpt after this many minutes.

    Returns:
        The content of result.json; None if no epoch was finished.

    Raises:
        UserError: The options, the data or the checkpoint do not fit.
        UnsavedError: The run ended, but its checkpoint could not be written to its place.
    """
    trainer = trainer or Trainer()
    require_own_processes(trainer)
    every = {"checkpoint_every_n_steps": checkpoint_every_n_steps, "checkpoint_every_minutes": checkpoint_every_minutes}
    for name, value in every.items():
        if value is not None and not value > 0:
            raise UserError(f"`{name}` must be positive; received {value:g}")
    resuming = auto_resume and ckpt_path is None
    newest = newest_run(Path(trainer.default_root_dir), getattr(trainer, "run_name", "")) if resuming else None
    if newest:
        if is_finished(newest):
            announce(trainer, f"{shown(newest)} is finished: nothing to do (`auto_resume`)")
            return cast(Result, read_record("result", newest))
        ckpt_path = str(newest)
    if trainer.current_epoch > 0:
        raise UserError(f"this Trainer has already trained {trainer.current_epoch} epochs: create a new Trainer")
    recorder = find_recorder(trainer)
    recorder.reset()
    checkpoint = resume_run(trainer, ckpt_path) if ckpt_path else None
    unknown = checkpoint is None and None in (model.hparams["lr_max"], model.hparams["lr_min"])

    read_images(datamodule)
    planned_steps = check_run(trainer, model, datamodule, resumed=checkpoint is not None)
    with nullcontext() if checkpoint else discard_failed_start(trainer):
        start_run(trainer, model, datamodule)
        if unknown and is_fast_dev_run(trainer):
            announce(trainer, f"fast_dev_run: no LR range test, constant LR {FAST_DEV_RUN_LR:g}")
        elif unknown and trainer.is_global_zero:  # the other processes get its bounds when training starts
            try:
                find_bounds(trainer, model, datamodule, lr_find).set_missing_bounds(model)
            except SystemExit as stop:
                what = "terminated" if isinstance(stop, SIGTERMException) else "interrupted"
                announce(trainer, f"{what} in the LR range test: nothing is trained yet; start again")
                sys.exit(TERMINATED if isinstance(stop, SIGTERMException) else stop.code)
        if datamodule.val_size and trainer.checkpoint_callback:
            keep_best(trainer)
        save_within_epochs(trainer, checkpoint_every_n_steps, checkpoint_every_minutes)
        try:
            trainer.fit(model, datamodule=datamodule, ckpt_path=checkpoint)
        except SystemExit as stop:  # raised by Lightning on Ctrl-C and SIGTERM
            if recorder.rows:
                keep_result(trainer, run_result(trainer, model, datamodule, recorder, planned_steps))
            sys.exit(TERMINATED if isinstance(stop, SIGTERMException) else stop.code)
    if is_fast_dev_run(trainer) or not recorder.rows:
        return None
    recorder.stop_clock()

    evaluate_last_epoch(trainer, model, datamodule, recorder)
    result = run_result(trainer, model, datamodule, recorder, planned_steps)
    announce(trainer, closing_lines(result))
    keep_result(trainer, result)
    show_hparams(trainer, model, recorder.rows[-1])
    unsaved = rescue_checkpoint(trainer)
    if report:
        write_run_report(trainer, datamodule)
    if unsaved:
        raise UnsavedError(unsaved)
    if result["ended"] in FINISHED:
        drop_previous(trainer)
    return result


def find_recorder(trainer: pl.Trainer) -> RunRecorder:
    """The trainer's recorder; a plain pl.Trainer gets one."""
    found = next((callback for callback in callbacks_of(trainer) if isinstance(callback, RunRecorder)), None)
    if found is None:
        found = RunRecorder()
        callbacks_of(trainer).insert(0, found)
    return found


def check_run(trainer: pl.Trainer, model: ImageClassifier, datamodule: CIFAR10DataModule, *, resumed: bool) -> int:
    """The planned optimizer steps.

    Raises:
        UserError: The schedule, the classes, the network or a callback does not fit the run.
    """
    images, steps = datamodule.train_images, 0.0
    if not is_fast_dev_run(trainer):
        per_epoch = steps_per_epoch(trainer, len(images), datamodule.batch_size)
        steps = total_steps(trainer, per_epoch)
        check_schedule(model.hparams, steps / per_epoch)
    refuse_callbacks(trainer, logged_metrics(held_out=datamodule.val_size > 0))
    classes = model.hparams["num_classes"]
    if len(images.classes) != classes and not resumed:  # a checkpoint is checked when it is loaded
        raise UserError(f"the data has {len(images.classes)} classes; received `num_classes` {classes}")
    check_network(model.net, classes, images.images.shape[1])
    return int(steps)


def keep_best(trainer: pl.Trainer) -> None:
    """Keep the checkpoint with the best validation accuracy too."""
    callbacks = callbacks_of(trainer)
    if not any(getattr(callback, "monitor", None) == "val/acc" for callback in callbacks):
        # saved at the evaluation that chose it, and before last.ckpt, which stores the state of this callback
        callbacks.insert(-1, checkpoint_callback("best", monitor="val/acc", mode="max", save_on_train_epoch_end=False))


def save_within_epochs(trainer: pl.Trainer, steps: int | None, minutes: float | None) -> None:
    """Write last.ckpt within epochs too, so that less is trained again after a crash."""
    if trainer.checkpoint_callback is None:
        return
    last = Path(LAST).stem
    if steps:
        callbacks_of(trainer).insert(-1, checkpoint_callback(last, every_n_train_steps=steps))
    if minutes:
        callbacks_of(trainer).insert(-1, checkpoint_callback(last, train_time_interval=timedelta(minutes=minutes)))


def evaluate_last_epoch(
    trainer: pl.Trainer, model: ImageClassifier, datamodule: CIFAR10DataModule, recorder: RunRecorder
) -> None:
    """Evaluate on the test images after a run with held-out images, or if the last epoch was not evaluated."""
    last = recorder.rows[-1]
    if datamodule.val_size:
        last |= trainer.test(model, datamodule=datamodule, verbose=False)[0]
    elif "test/acc" not in last and trainer.limit_val_batches != 0:
        last |= trainer.validate(model, datamodule=datamodule, verbose=False)[0]
    recorder.save(trainer)


def keep_result(trainer: pl.Trainer, result: Result) -> None:
    """Write result.json."""
    folder = log_folder(trainer)
    if folder and trainer.is_global_zero:
        with write_errors_as_warnings(trainer, "result.json"):
            write_result(folder, result)
        announce(trainer, f"run: {shown(folder)}")


def show_hparams(trainer: pl.Trainer, model: ImageClassifier, last: EpochMetrics) -> None:
    """Fill TensorBoard's hparams tab."""
    metrics = {f"final/{name.replace('/', '_')}": value for name, value in last.items() if "/" in name}
    for logger in tensorboard_loggers(trainer):
        with failures_as_warnings(logger):
            logger.log_hyperparams(dict(model.hparams), metrics, step=trainer.global_step)
            logger.experiment.flush()


def write_run_report(trainer: pl.Trainer, datamodule: CIFAR10DataModule) -> None:
    """Write the report of the run that just ended. A failure is only a warning: the run is kept."""
    folder = log_folder(trainer)
    if not (trainer.is_global_zero and folder and last_checkpoint(folder).is_file()):
        return
    from customresnet.analysis.report import write_report

    try:
        write_report(last_checkpoint(folder), datamodule.test_images)
    except (UserError, OSError) as error:
        print(f"warning: the run is kept, but its report could not be written: {error}", file=sys.stderr)
