"""The Trainer's command schedule: what the learning rate and the momentum will do."""

from pathlib import Path

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs import folders as runs
from customresnet.runtime import files
from customresnet.runtime.errors import UserError
from customresnet.schedules.schedule import Schedule
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lr.bounds import LRRangeTest
from customresnet.training.run_trainer import RunTrainer


class ScheduleCommand(RunTrainer):
    """The schedule of a fit, before it or after."""

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
            ckpt_path: Show the schedule of a run, in its folder: last, a checkpoint or a run's folder. From Python,
                hand over its model, too.
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
        files.make_folder(folder, "--trainer.default_root_dir")
        result.save(folder)
        self.print("\n".join(result.lines()))
        self.print(f"written: {files.shown(folder.resolve() / 'schedule.png')} and schedule.csv")
        return result
