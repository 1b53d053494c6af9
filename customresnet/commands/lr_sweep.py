"""lr-sweep: train a new network at each of several learning rates."""

import sys
from pathlib import Path

import pytorch_lightning as pl
from tqdm import tqdm

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs.folders import LOGS, versions
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import shown
from customresnet.runtime.formatting import percent
from customresnet.runtime.screen import interactive
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lightning import log_folder, steps_per_epoch
from customresnet.training.lr.sweep import LRSweep, Spacing, measure_points
from customresnet.training.lr.sweep_result import FILE, LRPoint, LRSweepResult
from customresnet.training.messages import announce
from customresnet.training.run import log_into, read_images, require_single_device, show_figure, start_run
from customresnet.training.trainer import Trainer, shared_options


def lr_sweep(
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    trainer: pl.Trainer | None = None,
    points: int = 20,
    start: float = 1e-4,
    end: float = 1.0,
    spacing: Spacing = "linear",
    epochs: float = 1.0,
    steps: int | None = None,
    parallel: int = 1,
    resume: bool = False,
) -> LRSweepResult:
    """Train a new network at each of several learning rates, and compare the accuracies.

    Args:
        model: Provides the options of the networks; it does not change.
        points: Number of learning rates.
        start: The lowest learning rate.
        end: The highest learning rate.
        spacing: Equal steps (linear) or equal ratios (log) between the learning rates.
        epochs: Epochs to train at each learning rate.
        steps: Optimizer steps to train at each learning rate, instead of epochs.
        parallel: Learning rates to measure at the same time, in processes that share the cores or the GPU.
        resume: Continue the newest unfinished sweep.
    """
    trainer = trainer or Trainer()
    sweep = LRSweep(points, start, end, spacing, epochs, steps)
    sweep.check()
    if parallel < 1:
        raise UserError(f"`parallel` must be at least 1; received {parallel}")
    require_single_device(trainer, "the LR sweep")
    model.rebuild()  # can it be built again?
    unfinished = unfinished_sweep(trainer) if resume else None
    if unfinished:
        log_into(trainer, unfinished)
    read_images(datamodule)
    start_run(trainer, model, datamodule)
    flags = sweep.flags(model, datamodule, shared_options(trainer))
    per_epoch = steps_per_epoch(trainer, len(datamodule.train_images), datamodule.batch_size)
    result = LRSweepResult(flags, sweep.lrs(), sweep.steps_each(per_epoch), [])
    if unfinished:
        result = LRSweepResult.load(unfinished)
        result.refuse_other_flags(flags)
        if (result.lrs, result.steps) != (sweep.lrs(), sweep.steps_each(per_epoch)):
            raise UserError(f"`resume`: {unfinished / FILE} is damaged: its learning rates or steps are not its flags'")
        announce(trainer, f"resuming {shown(unfinished)}: {len(result.points)} of {points} points are measured")
    announce(trainer, f"LR sweep: {points} learning rates from {start:g} to {end:g}, {result.steps} steps at each")
    measure(trainer, result, model, datamodule, parallel)
    show_result(trainer, result)
    return result


def unfinished_sweep(trainer: pl.Trainer) -> Path:
    """The folder of the newest unfinished sweep."""
    root, name = Path(trainer.default_root_dir), getattr(trainer, "run_name", "")
    sweeps = [folder for folder in versions(root, name) if (folder / FILE).is_file()]
    left = [folder for folder in sweeps if LRSweepResult.load(folder).left]
    if not left:
        what = "every LR sweep is finished" if sweeps else "there is no LR sweep"
        raise UserError(f"`resume`: {what} in {root / LOGS / name}; start one without `resume`")
    return left[-1]


def measure(
    trainer: pl.Trainer,
    result: LRSweepResult,
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    parallel: int,
) -> None:
    """Measure the remaining points, and save each one when it is finished."""
    folder = log_folder(trainer)
    if folder:
        result.save(folder)
    left = result.left
    measured = measure_points(left, model, datamodule, result.steps, shared_options(trainer), parallel)
    bar = tqdm(measured, "LR sweep", len(left), leave=False, unit="point", disable=not interactive())
    try:
        for point in bar:
            result.add(point)
            if folder:
                result.save(folder)
            bar.clear()
            announce(trainer, point_line(point, len(result.points), len(result.lrs)))
    except (KeyboardInterrupt, SystemExit):  # Lightning raises the second on Ctrl-C
        kept = f"{len(result.points)} of {len(result.lrs)} points are kept; continue with --resume"
        announce(trainer, f"interrupted: {kept}" if folder else "interrupted")
        sys.exit(1)


def show_result(trainer: pl.Trainer, result: LRSweepResult) -> None:
    """Show the suggested bounds, any doubts about them, and the figure."""
    if result.best:
        kind = "training" if result.best.val_acc is None else "validation"
        announce(
            trainer,
            f"LRMAX {result.lr_max:.2e} ({kind} accuracy {percent(result.best.score)}), LRMIN {result.lr_min:.2e} "
            f"(LRMAX/10): --model.lr_max {result.lr_max:.3g} --model.lr_min {result.lr_min:.3g}",
        )
    for doubt in result.doubts():
        announce(trainer, f"note: {doubt}")
    show_figure(trainer, "lr_sweep.png", "LR sweep", result.figure)


def point_line(point: LRPoint, number: int, points: int) -> str:
    """One line about one point."""
    line = f"point {number:>{len(str(points))}}/{points}  lr {point.lr:.2e}  "
    if point.train_acc is None:
        return line + "diverged: the loss is not finite"
    line += f"train loss {point.train_loss:.4f} acc {percent(point.train_acc)}"
    return line + (f"  val acc {percent(point.val_acc)}" if point.val_acc is not None else "")
