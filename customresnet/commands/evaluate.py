"""validate and test: evaluate a checkpoint."""

import warnings
from typing import Any

import pytorch_lightning as pl

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.models.tta import flip_tta
from customresnet.runs.folders import run_folder
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import write_beside
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lightning import count_evaluated
from customresnet.training.messages import announce, evaluation_line
from customresnet.training.run import resolve_checkpoint
from customresnet.training.trainer import Trainer


def validate(
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    trainer: pl.Trainer | None = None,
    ckpt_path: str | None = None,
    tta: bool = False,
) -> dict[str, Any]:
    """Evaluate a checkpoint on its run's held-out images, or on the test images if there are none.

    Args:
        ckpt_path: last or best (of the newest run of this name), a checkpoint, or a run's folder.
        tta: Average the logits of each image and its mirror image (test-time augmentation).
    """
    return _evaluate("validate", model, datamodule, trainer or Trainer(), ckpt_path, tta)


def test(
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    trainer: pl.Trainer | None = None,
    ckpt_path: str | None = None,
    tta: bool = False,
) -> dict[str, Any]:
    """Evaluate a checkpoint on all test images.

    Args:
        ckpt_path: last or best (of the newest run of this name), a checkpoint, or a run's folder.
        tta: Average the logits of each image and its mirror image (test-time augmentation).
    """
    return _evaluate("test", model, datamodule, trainer or Trainer(), ckpt_path, tta)


def _evaluate(
    command: str,
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    trainer: pl.Trainer,
    ckpt_path: str | None,
    tta: bool,
) -> dict[str, Any]:
    if ckpt_path is None:
        raise UserError(f"{command} needs `ckpt_path`: last, a checkpoint or a run's folder")
    checkpoint = resolve_checkpoint(trainer, ckpt_path)
    evaluate = trainer.test if command == "test" else trainer.validate
    loggers, trainer.loggers = trainer.loggers, []  # the run already has a folder
    try:
        with warnings.catch_warnings(), flip_tta(model.net, tta):
            warnings.filterwarnings("ignore", message="The dirpath has changed")
            metrics = dict(evaluate(model, datamodule=datamodule, ckpt_path=checkpoint, verbose=False)[0])
    finally:
        trainer.loggers = loggers
    stage = "val" if "val/acc" in metrics else "test"
    images = datamodule.val_size if stage == "val" else len(datamodule.test_images)
    limit = trainer.limit_test_batches if command == "test" else trainer.limit_val_batches
    images = count_evaluated(images, datamodule.batch_size, limit, trainer.world_size)
    announce(trainer, evaluation_line(stage, metrics, images) + (", with flip TTA" if tta else ""))
    counts = {f"{stage}/correct": round(metrics[f"{stage}/acc"] * images), f"{stage}/images": images}
    result = {**metrics, **counts, "source": datamodule.source, "checkpoint": str(checkpoint), "tta": tta}
    if trainer.is_global_zero:
        write_beside(run_folder(checkpoint) / f"{command}{'_tta' if tta else ''}.json", result)
    return result
