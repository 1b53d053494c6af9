"""The Trainer's commands about learning rates: lr-find, lr-sweep and schedule."""

import json
import sys
from pathlib import Path

import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tqdm import tqdm

from customresnet import files, recipes, runs
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.errors import UserError
from customresnet.screen import interactive
from customresnet.training import lr_sweep_result
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lr_bounds import LRRangeResult, LRRangeTest, RepeatedLRRange
from customresnet.training.lr_range import run_lr_range_test
from customresnet.training.lr_sweep import LRSweep, Spacing, measure_points
from customresnet.training.lr_sweep_result import LRPoint, LRSweepResult
from customresnet.training.probe import shared_options
from customresnet.training.run_log import opening_lines
from customresnet.training.run_trainer import RunTrainer
from customresnet.training.schedule import Schedule


class LearningRateCommands(RunTrainer):
    """The Trainer's commands about learning rates."""

    # --------------------------------------------------------------------------------------------------------- lr-find

    def find_learning_rates(
        self,
        model: ImageClassifier,
        datamodule: CIFAR10DataModule,
        lr_find: LRRangeTest = LRRangeTest(),
        repeat: int = 1,
        update: Path | None = None,
    ) -> LRRangeResult | RepeatedLRRange:
        """Run the LR range test alone and show the learning rates it suggests.

        Args:
            model: The classifier to probe; it is left as it was.
            datamodule: Its data.
            lr_find: How the test runs.
            repeat: Run it with so many seeds, counted up from the run's own, and suggest the median.
            update: A .yaml file to set both learning rates in, for fit --config; it is made if there is none.
        """
        if repeat < 1:
            raise UserError(f"--repeat must be at least 1; received {repeat}")
        if update:
            recipes.with_options(update, f"--update {update}", "model", {})
        self._make_log_folder()
        datamodule.trainer = self  # it chooses its engine by the device
        datamodule.setup("fit")
        self.print(opening_lines(self, model, datamodule, self._precision_reason))
        result: LRRangeResult | RepeatedLRRange
        if repeat == 1:
            result = self._find_bounds(model, datamodule, lr_find)
        else:
            result = self._repeat_test(model, datamodule, lr_find, repeat)
        self.print(f"to train with them: --model.lr_max {result.lr_max:.3g} --model.lr_min {result.lr_min:.3g}")
        if update:
            bounds = {"lr_max": result.lr_max, "lr_min": result.lr_min}
            files.write_atomically(update, recipes.with_options(update, f"--update {update}", "model", bounds))
            self.print(f"or, beside the flags of this command: fit --config {update}")
        return result

    def _find_bounds(self, model: ImageClassifier, datamodule: CIFAR10DataModule, test: LRRangeTest) -> LRRangeResult:
        self._refuse_several_devices("the LR range test")
        self.print(f"LR range test: {test.steps} steps, LR {test.min:g} to {test.max:g}")
        result = run_lr_range_test(model, datamodule, test, **shared_options(self))
        found = ", ".join(f"{name} {lr:.2e}" for name, lr in result.candidates.items())
        self.print(f"LRMAX {result.lr_max:.2e} ({test.choose}), LRMIN {result.lr_min:.2e}; candidates: {found}")
        self._keep(result)
        return result

    def _repeat_test(
        self, model: ImageClassifier, datamodule: CIFAR10DataModule, test: LRRangeTest, repeat: int
    ) -> RepeatedLRRange:
        self._refuse_several_devices("the LR range test")
        self.print(f"LR range test with {repeat} seeds: {test.steps} steps, LR {test.min:g} to {test.max:g}")
        first, failure = datamodule.seed, None
        result = RepeatedLRRange([], [])
        try:
            for seed in range(first, first + repeat):
                datamodule.seed = seed
                torch.manual_seed(seed)
                fresh = ImageClassifier(**model.hparams) if seed != first else model
                try:
                    found = run_lr_range_test(fresh, datamodule, test, **shared_options(self))
                except UserError as error:  # one seed's, and worth seeing beside the others
                    failure = error
                    self.print(f"seed {seed}: {error}")
                    continue
                result.add(seed, found)
                self.print(f"seed {seed}: LRMAX {found.lr_max:.2e} ({test.choose}), LRMIN {found.lr_min:.2e}")
        finally:
            datamodule.seed = first
        if failure and not result.seeds:
            raise failure
        low, high = result.spread()["lr_max"]
        spread = f"the seeds' {low:.2e} to {high:.2e}, factor {high / low:.2f}"
        self.print(f"median LRMAX {result.lr_max:.2e} ({spread}), LRMIN {result.lr_min:.2e}")
        self._keep(result)
        return result

    def _keep(self, result: LRRangeResult | RepeatedLRRange) -> None:
        if isinstance(self.logger, TensorBoardLogger):
            files.write_atomically(Path(self.logger.log_dir) / "lr_find.json", json.dumps(result.content(), indent=1))
        self._show_figure("lr_find.png", "LR range test", result)

    def _show_figure(self, name: str, title: str, result: LRRangeResult | RepeatedLRRange | LRSweepResult) -> None:
        """Put a result's figure into the log folder and into TensorBoard."""
        if isinstance(self.logger, TensorBoardLogger):
            figure, path = result.figure(), Path(self.logger.log_dir) / name
            figure.savefig(path, dpi=150)
            self.print(f"plot: {files.shown(path)}")
            self.logger.experiment.add_figure(title, figure)
            self.logger.experiment.flush()

    def _refuse_several_devices(self, what: str) -> None:
        if self.world_size > 1:
            raise UserError(
                f"{what} runs on one device: find the learning rates with --trainer.devices 1, then pass "
                "--model.lr_max and --model.lr_min"
            )

    # -------------------------------------------------------------------------------------------------------- lr-sweep

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
        datamodule.trainer = self  # it chooses its engine by the device
        datamodule.setup("fit")
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
        self._show_figure("lr_sweep.png", "LR sweep", result)

    # -------------------------------------------------------------------------------------------------------- schedule

    def schedule(
        self,
        model: ImageClassifier,
        datamodule: CIFAR10DataModule,
        ckpt_path: str | None = None,
        lr_find: LRRangeTest = LRRangeTest(),
        steps_per_epoch: int | None = None,
    ) -> Schedule:
        """Show the learning rate and momentum of every step of a fit, without training or reading images.

        Args:
            model: Gives the policy and its bounds. Without bounds, learning rates are shares of LRMAX.
            datamodule: Gives the number of images.
            ckpt_path: Show the schedule of a run: last, a checkpoint or a run's folder.
            lr_find: Not used; here so that every flag of fit is taken.
            steps_per_epoch: Optimizer steps in an epoch, instead of those that the images make.
        """
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise UserError(f"--steps_per_epoch must be at least 1; received {steps_per_epoch}")
        if steps_per_epoch is None:
            steps_per_epoch = self._steps_per_epoch(datamodule.count_training_images(), datamodule.batch_size)
        total = self._total_steps(steps_per_epoch)
        model.check_schedule(total / steps_per_epoch)
        lr_max, lr_min = model.hparams["lr_max"], model.hparams["lr_min"]
        assumed = tuple(name for name, known in (("LRMAX", lr_max), ("LRMIN", lr_max and lr_min)) if not known)
        lr_max = lr_max or 1.0
        lr_min = lr_max / 10 if "LRMIN" in assumed else lr_min
        policy = model.policy(lr_max=lr_max, lr_min=lr_min)
        result = Schedule.of(policy, model.new_optimizer(), int(total), steps_per_epoch, assumed)
        folder = Path(self.default_root_dir) / runs.LOGS / self.run_name
        if ckpt_path:
            folder = runs.run_folder(Path(self._resolve(ckpt_path)))
        self._make(folder)
        result.save(folder)
        self.print("\n".join(result.lines()))
        self.print(f"written: {files.shown(folder.resolve() / 'schedule.png')} and schedule.csv")
        return result


def point_line(point: LRPoint, number: int, points: int) -> str:
    """One point of a sweep in words."""
    line = f"point {number:>{len(str(points))}}/{points}  lr {point.lr:.2e}  "
    if point.train_acc is None:
        return line + "diverged: the loss is no longer finite"
    line += f"train loss {point.train_loss:.4f} acc {point.train_acc:.2%}"
    return line + (f"  val acc {point.val_acc:.2%}" if point.val_acc is not None else "")


# LightningCLI looks a subcommand's method up by its name.
setattr(LearningRateCommands, "lr-find", LearningRateCommands.find_learning_rates)
setattr(LearningRateCommands, "lr-sweep", LearningRateCommands.sweep_learning_rates)
