"""The Trainer's command lr-find: run the LR range test alone."""

import json
from pathlib import Path

import torch
from pytorch_lightning.loggers import TensorBoardLogger

from customresnet.cli import recipes
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runtime import files
from customresnet.runtime.errors import UserError
from customresnet.training.callbacks.run_log import opening_lines
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lr.bounds import LRRangeResult, LRRangeTest, RepeatedLRRange
from customresnet.training.lr.range_test import run_lr_range_test
from customresnet.training.probe import shared_options
from customresnet.training.run_trainer import RunTrainer


class LRFindCommand(RunTrainer):
    """The LR range test, before fit or alone."""

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
        self._refuse_several_devices("the LR range test")
        self._make_log_folder()
        self._read_images(datamodule)
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
        self.print(f"LR range test: {test.steps} steps, LR {test.min:g} to {test.max:g}")
        result = run_lr_range_test(model, datamodule, test, **shared_options(self))
        found = ", ".join(f"{name} {lr:.2e}" for name, lr in result.candidates.items())
        self.print(f"LRMAX {result.lr_max:.2e} ({test.choose}), LRMIN {result.lr_min:.2e}; candidates: {found}")
        self._keep(result)
        return result

    def _repeat_test(
        self, model: ImageClassifier, datamodule: CIFAR10DataModule, test: LRRangeTest, repeat: int
    ) -> RepeatedLRRange:
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
        self._show_figure("lr_find.png", "LR range test", result.figure)


# LightningCLI looks a subcommand's method up by its name.
setattr(LRFindCommand, "lr-find", LRFindCommand.find_learning_rates)
