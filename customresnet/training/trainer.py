"""The Trainer of this project: fit, with its LR range test, beside the commands it inherits."""

from pathlib import Path

import pytorch_lightning as pl

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs import folders as runs
from customresnet.runtime.errors import UserError
from customresnet.training.callbacks.run_log import opening_lines
from customresnet.training.classifier import FAST_DEV_RUN_LR, ImageClassifier
from customresnet.training.evaluation import EvaluationCommands
from customresnet.training.lr.bounds import LRRangeTest
from customresnet.training.lr_find_command import LRFindCommand
from customresnet.training.lr_sweep_command import LRSweepCommand
from customresnet.training.run_trainer import one_checkpoint
from customresnet.training.schedule_command import ScheduleCommand


class Trainer(LRFindCommand, LRSweepCommand, ScheduleCommand, EvaluationCommands):
    """Lightning's Trainer with this project's commands; its options are those of RunTrainer."""

    def fit(  # type: ignore[override]
        self,
        model: ImageClassifier,
        datamodule: CIFAR10DataModule,
        ckpt_path: str | None = None,
        lr_find: LRRangeTest = LRRangeTest(),
    ) -> None:
        """Find the learning rates, train, and evaluate after every epoch.

        Args:
            model: The classifier to train.
            datamodule: Its data.
            ckpt_path: Go on with a run: last (the newest unfinished one of this name), a checkpoint or a run's folder.
            lr_find: The LR range test that sets the learning rates not given; skipped on resume.
        """
        self.run_log.reset()
        if ckpt_path:
            ckpt_path = self._resolve(ckpt_path, unfinished=True)
            folder = runs.run_folder(Path(ckpt_path))
            if (folder / runs.RESULT).is_file():
                raise UserError(f"--ckpt_path {ckpt_path}: this run is finished; see {folder / runs.RESULT}")
            self._go_on_in(folder)
        bounds_are_sought = not ckpt_path and None in (model.hparams["lr_max"], model.hparams["lr_min"])
        if bounds_are_sought and not self.fast_dev_run:
            self._refuse_several_devices("the LR range test")
        self._read_images(datamodule)
        if not self.fast_dev_run:
            per_epoch = self._steps_per_epoch(len(datamodule.train_images), datamodule.batch_size)
            model.check_schedule(self._total_steps(per_epoch) / per_epoch)
        classes = len(datamodule.train_images.classes)
        if classes != model.hparams["num_classes"] and not ckpt_path:  # a checkpoint is compared when it is loaded
            raise UserError(
                f"the data has {classes} classes; received --model.num_classes {model.hparams['num_classes']}"
            )
        self._make_log_folder()
        self.print(opening_lines(self, model, datamodule, self._precision_reason))
        if bounds_are_sought:
            if self.fast_dev_run:
                self.print(f"fast_dev_run: no LR range test, constant LR {FAST_DEV_RUN_LR:g}")
            else:
                self._find_bounds(model, datamodule, lr_find).set_missing_bounds(model)
        if datamodule.val_size and self.checkpoint_callback and self._best is None:
            self._best = one_checkpoint("best", monitor="val/acc", mode="max")
            self.callbacks.insert(-1, self._best)  # before the last checkpoint is written, which is to know of it
        super().fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
        if self.fast_dev_run or not self.run_log.rows:
            return
        self.run_log.stop_clock()
        if datamodule.val_size:  # the one look at the test images
            self.run_log.last |= pl.Trainer.test(self, model, datamodule=datamodule, verbose=False)[0]
        elif "test/acc" not in self.run_log.last and self.limit_val_batches != 0:
            self.run_log.last |= pl.Trainer.validate(self, model, datamodule=datamodule, verbose=False)[0]
        self.run_log.finish(self, model)
