"""schedule: the learning rate and momentum of every step of a fit."""

from pathlib import Path

import pytorch_lightning as pl

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs.folders import LOGS, run_folder
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import make_folder, shown
from customresnet.schedules.schedule import Schedule
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lightning import steps_per_epoch as count_steps
from customresnet.training.lightning import total_steps
from customresnet.training.messages import announce
from customresnet.training.options import check_schedule
from customresnet.training.run import resolve_checkpoint
from customresnet.training.trainer import Trainer


def schedule(
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    trainer: pl.Trainer | None = None,
    ckpt_path: str | None = None,
    steps_per_epoch: int | None = None,
) -> Schedule:
    """Show the learning rate and momentum of each step of a fit, without training or reading images.

    Args:
        model: Provides the policy and its bounds. Without bounds, learning rates are relative to LRMAX.
        datamodule: Provides the number of images.
        trainer: Provides the length of the run.
        ckpt_path: Show the schedule of an existing run, and write it to its folder: last, a checkpoint or a run's
            folder. From Python, pass the run's model too.
        steps_per_epoch: Optimizer steps per epoch. Default: computed from the number of images.
    """
    trainer = trainer or Trainer()
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise UserError(f"`steps_per_epoch` must be at least 1; received {steps_per_epoch}")
    if steps_per_epoch is None:
        steps_per_epoch = count_steps(trainer, datamodule.count_training_images(), datamodule.batch_size)
    total = total_steps(trainer, steps_per_epoch)
    check_schedule(model.hparams, total / steps_per_epoch)
    lr_max, lr_min = model.hparams["lr_max"], model.hparams["lr_min"]
    assumed = tuple(name for name, known in (("LRMAX", lr_max), ("LRMIN", lr_max and lr_min)) if not known)
    lr_max = lr_max or 1.0
    lr_min = lr_max / 10 if "LRMIN" in assumed else lr_min
    policy = model.policy(lr_max=lr_max, lr_min=lr_min)
    result = Schedule.from_policy(policy, model.new_optimizer(), int(total), steps_per_epoch, assumed)
    if ckpt_path:
        folder = run_folder(resolve_checkpoint(trainer, ckpt_path))
    else:
        folder = Path(trainer.default_root_dir) / LOGS / getattr(trainer, "run_name", "")
    make_folder(folder, "`default_root_dir`")
    result.save(folder)
    announce(trainer, "\n".join(result.lines()))
    announce(trainer, f"written: {shown(folder.resolve() / 'schedule.png')} and schedule.csv")
    return result
