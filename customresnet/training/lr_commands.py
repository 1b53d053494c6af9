"""The Trainer's commands about learning rates: lr-find, lr-sweep and schedule."""

from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.errors import UserError
from customresnet.training import runs
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lr_range import LRRangeResult, LRRangeTest, run_lr_range_test
from customresnet.training.run_log import opening_lines
from customresnet.training.run_trainer import RunTrainer


class LearningRateCommands(RunTrainer):
    """The Trainer's commands about learning rates."""

    def find_learning_rates(
        self, model: ImageClassifier, datamodule: CIFAR10DataModule, lr_find: LRRangeTest = LRRangeTest()
    ) -> LRRangeResult:
        """Run the LR range test alone and show the learning rates it suggests.

        Args:
            model: The classifier to probe; it is left as it was.
            datamodule: Its data.
            lr_find: How the test runs.
        """
        self._make_log_folder()
        datamodule.setup("fit")
        self.print(opening_lines(self, model, datamodule, self._precision_reason))
        result = self._find_bounds(model, datamodule, lr_find)
        self.print(f"to train with them: --model.lr_max {result.lr_max:.3g} --model.lr_min {result.lr_min:.3g}")
        return result

    def _find_bounds(self, model: ImageClassifier, datamodule: CIFAR10DataModule, test: LRRangeTest) -> LRRangeResult:
        if self.world_size > 1:
            raise UserError(
                "the LR range test runs on one device: find the bounds with `lr-find --trainer.devices 1`, then pass "
                "--model.lr_max and --model.lr_min"
            )
        self.print(f"LR range test: {test.steps} steps, LR {test.min:g} to {test.max:g}")
        device = self.strategy.root_device
        result = run_lr_range_test(
            model,
            datamodule,
            test,
            accelerator=device.type,
            devices=1 if device.index is None else [device.index],
            precision=self.precision,
            accumulate_grad_batches=self.accumulate_grad_batches,
            gradient_clip_val=self.gradient_clip_val,
            gradient_clip_algorithm=self.gradient_clip_algorithm,
        )
        found = ", ".join(f"{name} {lr:.2e}" for name, lr in result.candidates.items())
        self.print(f"LRMAX {result.lr_max:.2e} ({test.choose}), LRMIN {result.lr_min:.2e}; candidates: {found}")
        if isinstance(self.logger, TensorBoardLogger):
            folder = Path(self.logger.log_dir)
            result.save(folder)
            self.print(f"plot: {runs.shown(folder / 'lr_find.png')}")
            self.logger.experiment.add_figure("LR range test", result.figure())
            self.logger.experiment.flush()
        return result


setattr(
    LearningRateCommands, "lr-find", LearningRateCommands.find_learning_rates
)  # LightningCLI looks a subcommand's method up by its name
