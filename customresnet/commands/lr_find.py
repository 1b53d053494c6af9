"""lr-find: run only the LR range test."""

from pathlib import Path

import pytorch_lightning as pl

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import write_atomically
from customresnet.runtime.recipes import recipe_with
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lr.bounds import LRRangeTest
from customresnet.training.lr.range_result import LRRangeResult, RepeatedLRRange
from customresnet.training.lr.range_test import find_bounds, find_median_bounds
from customresnet.training.messages import announce
from customresnet.training.run import read_images, require_single_device, start_run
from customresnet.training.trainer import Trainer


def lr_find(
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    trainer: pl.Trainer | None = None,
    lr_find: LRRangeTest = LRRangeTest(),
    repeat: int = 1,
    update: Path | None = None,
) -> LRRangeResult | RepeatedLRRange:
    """Run only the LR range test, and show the learning rates it suggests.

    Args:
        model: The classifier to measure; it does not change.
        lr_find: The LR range test.
        repeat: Number of seeds, starting from the run's own; the suggestion is the median over them.
        update: A .yaml file, new or existing, in which to set both learning rates for fit --config.
    """
    trainer = trainer or Trainer()
    if repeat < 1:
        raise UserError(f"`repeat` must be at least 1; received {repeat}")
    if update:
        recipe_with(update, f"`update` {update}", "model", {})  # can it be written?
    require_single_device(trainer, "the LR range test")
    if repeat > 1:
        model.rebuild()  # can it be built again?
    read_images(datamodule)
    start_run(trainer, model, datamodule)
    result: LRRangeResult | RepeatedLRRange
    if repeat == 1:
        result = find_bounds(trainer, model, datamodule, lr_find)
    else:
        result = find_median_bounds(trainer, model, datamodule, lr_find, repeat)
    announce(trainer, f"to train with them: --model.lr_max {result.lr_max:.3g} --model.lr_min {result.lr_min:.3g}")
    if update:
        bounds = {"lr_max": result.lr_max, "lr_min": result.lr_min}
        write_atomically(update, recipe_with(update, f"`update` {update}", "model", bounds))
        announce(trainer, f"or, with the flags of this command: fit --config {update}")
    return result
