"""LR range test: train while the LR rises exponentially, and record the loss.

Source: Smith, "Cyclical learning rates for training neural networks", 2017, https://arxiv.org/abs/1506.01186.
"""

import copy
import io
import math
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.tuner import Tuner
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.optim import Optimizer

from customresnet.data.batches import Batch, batch_size_per_process
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs.files import write_lr_find
from customresnet.runtime.errors import UserError
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lightning import can_fuse_optimizer, log_folder, seed_batch
from customresnet.training.lr.bounds import BY_HAND, USUAL, LRRangeTest, choose_bounds, initial_loss
from customresnet.training.lr.range_result import LRRangeResult, RepeatedLRRange
from customresnet.training.messages import announce
from customresnet.training.run import show_figure
from customresnet.training.trainer import probe_trainer, shared_options


class RangeTestProbe(pl.LightningModule):
    """A copy of a classifier with a plain optimizer, which records the learning rate and loss of every step.

    The Tuner sets the schedule, but reports only a moving average of the losses.
    """

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.lrs: dict[int, float] = {}
        self.batch_losses: dict[int, list[Tensor]] = defaultdict(list)  # several if gradients are accumulated

    def configure_optimizers(self) -> Optimizer:
        return self.model.new_optimizer(fused=can_fuse_optimizer(self))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        seed_batch(self, batch_idx)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.model(images), labels, label_smoothing=self.model.hparams["label_smoothing"])
        self.lrs[self.trainer.global_step] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.batch_losses[self.trainer.global_step].append(loss.detach())
        return loss

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Learning rate and loss of each step, before the step."""
        losses = [float(torch.stack(batches).mean()) for batches in self.batch_losses.values()]
        return np.array(list(self.lrs.values())), np.array(losses)


def run_lr_range_test(
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    test: LRRangeTest,
    processes: int = 1,
    **options: Any,
) -> LRRangeResult:
    """Run the test with Lightning's Tuner on a copy of the model, so that the model does not change.

    A step has the whole batch of a run on ``processes`` processes, their shares one after another. ``options`` are
    those of the probe's Trainer (``shared_options``).

    Raises:
        UserError: No bounds can be chosen from the curve; the message says what to pass.
    """
    test.check()
    probe = RangeTestProbe(model)
    datamodule.setup("fit")
    whole = datamodule.batch_size
    options["accumulate_grad_batches"] = processes * options.get("accumulate_grad_batches", 1)
    datamodule.batch_size = batch_size_per_process(whole, processes)
    images = test.steps * options["accumulate_grad_batches"] * datamodule.batch_size
    # the Tuner stops at max_epochs, and small data sets need several epochs
    epochs = math.ceil(images / len(datamodule.train_images)) + 1
    # in a log file, the Tuner's progress bar would add a line for every step
    quiet = nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())
    try:
        with probe_trainer(max_epochs=epochs, **options) as trainer, quiet, sigterm_as_exception():
            Tuner(trainer).lr_find(
                probe,
                datamodule=datamodule,
                min_lr=test.min,
                max_lr=test.max,
                num_training=test.steps,
                update_attr=False,  # this project has its own rules
            )
    finally:
        datamodule.batch_size = whole
    lrs, losses = probe.curve()
    finite = len(losses) if np.isfinite(losses).all() else int(np.argmin(np.isfinite(losses)))
    diverged = finite < len(losses) or losses[-1] > 2 * initial_loss(losses)
    if finite < test.steps and not diverged:
        raise UserError(f"the LR range test measured only {finite} of {test.steps} learning rates; {BY_HAND}")
    return choose_bounds(lrs[:finite], losses[:finite], test, USUAL[model.hparams["optimizer"]])


@contextmanager
def sigterm_as_exception() -> Iterator[None]:
    """Raise Lightning's exception on SIGTERM, which Lightning does only in the training that follows."""

    def stop(*_: Any) -> None:
        raise SIGTERMException

    if threading.current_thread() is not threading.main_thread():  # only the main thread handles signals
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def find_bounds(
    trainer: pl.Trainer, model: ImageClassifier, datamodule: CIFAR10DataModule, test: LRRangeTest
) -> LRRangeResult:
    """Run the LR range test, and write lr_find.json and lr_find.png into the log folder."""
    announce(trainer, f"LR range test: {test.steps} steps, LR {test.min:g} to {test.max:g}")
    result = run_lr_range_test(model, datamodule, test, trainer.world_size, **shared_options(trainer))
    found = ", ".join(f"{name} {lr:.2e}" for name, lr in result.candidates.items())
    chosen = test.choose if result.candidates else "fallback"
    announce(trainer, f"LRMAX {result.lr_max:.2e} ({chosen}), LRMIN {result.lr_min:.2e}; candidates: {found or 'none'}")
    for note in result.notes:
        announce(trainer, f"note: {note}")
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
