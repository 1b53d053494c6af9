"""The Trainer's command lr-sweep: a fresh network at each of several learning rates."""

import sys
from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger
from tqdm import tqdm

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs import folders as runs
from customresnet.runtime import files
from customresnet.runtime.errors import UserError
from customresnet.runtime.screen import interactive
from customresnet.training.callbacks.run_log import opening_lines
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lr import sweep_result as lr_sweep_result
from customresnet.training.lr.sweep import LRSweep, Spacing, measure_points
from customresnet.training.lr.sweep_result import LRPoint, LRSweepResult
from customresnet.training.probe import shared_options
from customresnet.training.run_trainer import RunTrainer


class LRSweepCommand(RunTrainer):
    """The LR sweep, and going on with one that was stopped."""

    def sweep_learning_rates(
        self,
        model: ImageClassifier,
        datamodule: CIFAR10DataModule,
        points: int = 20,
        start: float = 1e-4,
        end: float = 1.0,
        spacing: Spacing = "linear",
        epochs: float = 1.0,
        steps: int | None = None,
        parallel: int = 1,
        resume: bool = False,
    ) -> LRSweepResult:
        """Train a fresh network at each of several learning rates and compare the accuracy they reach.

        Args:
            model: Gives the options of the networks; it is left as it was.
            datamodule: Its data.
            points: How many learning rates to try.
            start: The lowest learning rate.
            end: The highest learning rate.
            spacing: Even steps between the learning rates, or even ratios.
            epochs: Epochs to train at each.
            steps: Optimizer steps to train at each, instead of epochs.
            parallel: Learning rates to measure at a time, in processes that share the cores or the GPU.
            resume: Go on with the newest unfinished sweep.
        """
        sweep = LRSweep(points, start, end, spacing, epochs, steps)
        sweep.check()
        if parallel < 1:
            raise UserError(f"--parallel must be at least 1; received {parallel}")
        self._refuse_several_devices("the LR sweep")
        unfinished = self._unfinished_sweep() if resume else None
        if unfinished:
            self._go_on_in(unfinished)
        self._make_log_folder()
        self._read_images(datamodule)
        self.print(opening_lines(self, model, datamodule, self._precision_reason))
        flags = sweep.flags(model, datamodule, shared_options(self))
        per_epoch = self._steps_per_epoch(len(datamodule.train_images), datamodule.batch_size)
        result = LRSweepResult(flags, sweep.lrs(), sweep.steps_each(per_epoch), [])
        if unfinished:
            result = LRSweepResult.load(unfinished)
            result.refuse_other_flags(flags)
            self.print(f"going on in {files.shown(unfinished)}: {len(result.points)} of {points} points are measured")
        self.print(f"LR sweep: {points} learning rates from {start:g} to {end:g}, {result.steps} steps at each")
        self._measure(result, model, datamodule, parallel)
        self._show_sweep(result)
        return result

    def _unfinished_sweep(self) -> Path:
        root = Path(self.default_root_dir)
        sweeps = [folder for folder in runs.versions(root, self.run_name) if (folder / lr_sweep_result.FILE).is_file()]
        left = [folder for folder in sweeps if LRSweepResult.load(folder).left]
        if not left:
            what = "every LR sweep is finished" if sweeps else "there is no LR sweep"
            raise UserError(f"--resume: {what} in {root / runs.LOGS / self.run_name}; begin one without --resume")
        return left[-1]

    def _measure(
        self, result: LRSweepResult, model: ImageClassifier, datamodule: CIFAR10DataModule, parallel: int
    ) -> None:
        folder = Path(self.logger.log_dir) if isinstance(self.logger, TensorBoardLogger) else None
        if folder:
            result.save(folder)
        left = result.left
        measured = measure_points(left, model, datamodule, result.steps, shared_options(self), parallel)
        bar = tqdm(measured, "LR sweep", len(left), leave=False, unit="point", disable=not interactive())
        try:
            for point in bar:
                result.add(point)
                if folder:
                    result.save(folder)
                bar.clear()
                self.print(point_line(point, len(result.points), len(result.lrs)))
        except (KeyboardInterrupt, SystemExit):  # Lightning turns the one into the other
            kept = f"{len(result.points)} of {len(result.lrs)} points are kept; go on with: --resume"
            self.print(f"interrupted: {kept}" if folder else "interrupted")
            sys.exit(1)

    def _show_sweep(self, result: LRSweepResult) -> None:
        if result.best:
            kind = "training" if result.best.val_acc is None else "validation"
            self.print(
                f"LRMAX {result.lr_max:.2e} ({kind} accuracy {result.best.score:.2%}), LRMIN {result.lr_min:.2e} "
                f"(LRMAX/10): --model.lr_max {result.lr_max:.3g} --model.lr_min {result.lr_min:.3g}"
            )
        for doubt in result.doubts():
            self.print(f"note: {doubt}")
        self._show_figure("lr_sweep.png", "LR sweep", result.figure)


def point_line(point: LRPoint, number: int, points: int) -> str:
    """One point of a sweep in words."""
    line = f"point {number:>{len(str(points))}}/{points}  lr {point.lr:.2e}  "
    if point.train_acc is None:
        return line + "diverged: the loss is no longer finite"
    line += f"train loss {point.train_loss:.4f} acc {point.train_acc:.2%}"
    return line + (f"  val acc {point.val_acc:.2%}" if point.val_acc is not None else "")


# LightningCLI looks a subcommand's method up by its name.
setattr(LRSweepCommand, "lr-sweep", LRSweepCommand.sweep_learning_rates)
