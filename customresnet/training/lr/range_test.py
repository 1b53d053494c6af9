"""LR range test: train with an LR that rises exponentially, and record the loss.

Source: Smith, "Cyclical learning rates for training neural networks", 2017, https://arxiv.org/abs/1506.01186.
"""

import copy
import io
import math
import sys
from contextlib import nullcontext, redirect_stderr
from typing import Any

import numpy as np
from pytorch_lightning.tuner import Tuner

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runtime.errors import UserError
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lr.bounds import BY_HAND, LRRangeResult, LRRangeTest, choose_bounds
from customresnet.training.probe import probe_trainer


def run_lr_range_test(
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    test: LRRangeTest,
    **options: Any,
) -> LRRangeResult:
    """Run the test with Lightning's Tuner on a copy of the model in a Trainer of its own: nothing is left behind.

    Args:
        model: The classifier to probe.
        datamodule: Its data.
        test: How the test runs.
        options: What that Trainer must share with the run's own, such as the precision.

    Raises:
        UserError: No bounds can be read off the curve; the message says what to pass.
    """
    test.check()
    probe = copy.deepcopy(model)
    probe.hparams.update(lr_max=None, lr_min=None)  # a plain optimizer: the Tuner brings the schedule
    datamodule.setup("fit")
    images = test.steps * options.get("accumulate_grad_batches", 1) * datamodule.batch_size
    # small data: as many epochs as the steps need, whatever the length of the run itself
    epochs = math.ceil(images / len(datamodule.train_images)) + 1
    # the Tuner's bar is for a terminal: in a log file it would leave a line for every step
    quiet = nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())
    with probe_trainer(max_epochs=epochs, **options) as trainer, quiet:
        finder = Tuner(trainer).lr_find(
            probe,
            datamodule=datamodule,
            min_lr=test.min,
            max_lr=test.max,
            num_training=test.steps,
            update_attr=False,  # the choice is ours
        )
    assert finder is not None
    lrs, losses = np.array(finder.results["lr"]), _unsmooth(finder.results["loss"])
    lrs = lrs[: len(losses)]
    finite = len(losses) if np.isfinite(losses).all() else int(np.argmin(np.isfinite(losses)))
    diverged = finite < len(losses) or losses[-1] > 2 * losses[0]
    if finite < test.steps and not diverged:
        raise UserError(f"the LR range test measured only {finite} of {test.steps} learning rates; {BY_HAND}")
    return choose_bounds(lrs[:finite], losses[:finite], test)


def _unsmooth(smoothed: list[float], beta: float = 0.98) -> np.ndarray:
    """The Tuner reports only a moving average whose correction is off by one step: take the true losses out of it."""
    steps = np.arange(1, len(smoothed) + 1)
    average = np.array(smoothed) * (1 - beta ** (steps + 1))
    return (average - beta * np.concatenate([[0.0], average[:-1]])) / (1 - beta)
