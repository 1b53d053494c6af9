"""Find LRMAX and LRMIN with the LR range test, with one or several seeds, and write the results."""

import pytorch_lightning as pl
import torch

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs.files import write_lr_find
from customresnet.runtime.errors import UserError
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lightning import log_folder
from customresnet.training.lr.bounds import LRRangeResult, LRRangeTest, RepeatedLRRange
from customresnet.training.lr.range_test import run_lr_range_test
from customresnet.training.messages import announce
from customresnet.training.probe import shared_options
from customresnet.training.run import show_figure


def find_bounds(
    trainer: pl.Trainer, model: ImageClassifier, datamodule: CIFAR10DataModule, test: LRRangeTest
) -> LRRangeResult:
    """Run the LR range test, and write lr_find.json and lr_find.png into the log folder."""
    announce(trainer, f"LR range test: {test.steps} steps, LR {test.min:g} to {test.max:g}")
    result = run_lr_range_test(model, datamodule, test, **shared_options(trainer))
    found = ", ".join(f"{name} {lr:.2e}" for name, lr in result.candidates.items())
    announce(trainer, f"LRMAX {result.lr_max:.2e} ({test.choose}), LRMIN {result.lr_min:.2e}; candidates: {found}")
    _keep(trainer, result)
    return result


def find_median_bounds(
    trainer: pl.Trainer, model: ImageClassifier, datamodule: CIFAR10DataModule, test: LRRangeTest, repeat: int
) -> RepeatedLRRange:
    """Run the test with ``repeat`` seeds, starting from the data module's; the suggestion is the median."""
    announce(trainer, f"LR range test with {repeat} seeds: {test.steps} steps, LR {test.min:g} to {test.max:g}")
    first, failure = datamodule.seed, None
    result = RepeatedLRRange([], [])
    try:
        for seed in range(first, first + repeat):
            datamodule.seed = seed
            torch.manual_seed(seed)
            fresh = model.rebuild() if seed != first else model
            try:
                found = run_lr_range_test(fresh, datamodule, test, **shared_options(trainer))
            except UserError as error:  # other seeds may succeed
                failure = error
                announce(trainer, f"seed {seed}: {error}")
                continue
            result.add(seed, found)
            announce(trainer, f"seed {seed}: LRMAX {found.lr_max:.2e} ({test.choose}), LRMIN {found.lr_min:.2e}")
    finally:
        datamodule.seed = first
    if failure and not result.seeds:
        raise failure
    low, high = result.spread()["lr_max"]
    spread = f"over the seeds {low:.2e} to {high:.2e}, a factor of {high / low:.2f}"
    announce(trainer, f"median LRMAX {result.lr_max:.2e} ({spread}), LRMIN {result.lr_min:.2e}")
    _keep(trainer, result)
    return result


def _keep(trainer: pl.Trainer, result: LRRangeResult | RepeatedLRRange) -> None:
    folder = log_folder(trainer)
    if folder and trainer.is_global_zero:
        write_lr_find(folder, result.to_dict())
    show_figure(trainer, "lr_find.png", "LR range test", result.figure)
