"""LR sweep: train a new network at each of several constant learning rates, and compare the accuracies.

The LR range test trains one network with a rising LR; the sweep trains a network per point.
"""

import json
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from customresnet.data.batches import Batch
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runtime.errors import UserError
from customresnet.schedules import POLICIES
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lr.sweep_result import LRPoint
from customresnet.training.options import SCHEDULE_OPTIONS
from customresnet.training.trainer import probe_trainer

Spacing = Literal["linear", "log"]


@dataclass(frozen=True)
class LRSweep:
    """The learning rates to try, and how long to train at each; see the parameters of ``lr_sweep``."""

    points: int = 20
    start: float = 1e-4
    end: float = 1.0
    spacing: Spacing = "linear"
    epochs: float = 1.0
    steps: int | None = None

    def check(self) -> None:
        if self.points < 2:
            raise UserError(f"`points` must be at least 2; received {self.points}")
        for name in ("start", "end"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UserError(f"`{name}` is a learning rate and must be positive; received {value:g}")
        if self.start >= self.end:
            raise UserError(f"`start` must be below `end`; received {self.start:g} and {self.end:g}")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"`steps` must be at least 1; received {self.steps}")
        if not 0 < self.epochs < math.inf:
            raise UserError(f"`epochs` must be positive; received {self.epochs:g}")

    def lrs(self) -> list[float]:
        """The learning rates, rising."""
        spaced = np.geomspace if self.spacing == "log" else np.linspace
        return spaced(self.start, self.end, self.points).tolist()

    def steps_each(self, steps_per_epoch: int) -> int:
        """Optimizer steps at each learning rate."""
        return self.steps if self.steps is not None else max(1, round(self.epochs * steps_per_epoch))

    def flags(self, model: ImageClassifier, datamodule: CIFAR10DataModule, options: dict[str, Any]) -> dict[str, Any]:
        """Every option that the points depend on, by flag. ``options`` are those of the probe's Trainer."""
        parts = ("source", "root", "batch_size", "val_size", "train_size", "test_share")
        data = (*parts, "mean", "std", "image_size", "augment", "engine", "seed")
        values = {f"--data.{name}": getattr(datamodule, name) for name in data}
        values["--data.root"] = str(datamodule.root) if datamodule.root else None
        values["--data.augment"] = asdict(datamodule.augment)
        network = {f"--model.{k}": v for k, v in model.hparams.items() if k not in ("policy", *SCHEDULE_OPTIONS)}
        trainer = {f"--trainer.{k}": v for k, v in options.items() if k not in ("accelerator", "devices")}
        own = {f"--{name}": value for name, value in asdict(self).items()}
        return json.loads(json.dumps({**own, **network, **values, **trainer}))


class LastQuarter(pl.Callback):
    """Measure accuracy and loss over the last quarter of the steps; stop when the loss is not finite."""

    def __init__(self, steps: int) -> None:
        self.first = steps - max(1, steps // 4)
        self.diverged = False
        self.images = 0
        self.correct: torch.Tensor | float = 0.0  # stays on the device until the end
        self.loss: torch.Tensor | float = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.register_forward_hook(self._keep)

    def _keep(self, module: Any, inputs: Any, logits: torch.Tensor) -> None:
        self.logits = logits.detach()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if not torch.isfinite(outputs["loss"]):
            self.diverged = trainer.should_stop = True
        elif trainer.global_step > self.first:
            logits, labels = self.logits.float(), batch[1]
            self.images += len(labels)
            self.correct = self.correct + (logits.argmax(dim=1) == labels).sum()
            self.loss = self.loss + F.cross_entropy(logits, labels, reduction="sum")

    def point(self, lr: float, val_acc: float | None, val_images: int) -> LRPoint:
        if self.diverged:
            return LRPoint(lr, None, None, None, self.images, diverged=True)
        train_acc, loss = float(self.correct) / self.images, float(self.loss) / self.images
        return LRPoint(lr, train_acc, loss, val_acc, self.images, val_images)


def at_constant_lr(model: ImageClassifier, lr: float) -> ImageClassifier:
    """A new classifier with the same options, but a constant learning rate and the optimizer's own momentum."""
    defaults = {field.name: field.default for policy in POLICIES.values() for field in fields(policy)}
    return model.rebuild(**{**defaults, "policy": "one_cycle", "lr_max": lr, "lr_min": lr, "momentum": None})


def train_at(
    lr: float, model: ImageClassifier, datamodule: CIFAR10DataModule, steps: int, options: dict[str, Any]
) -> tuple[LRPoint, ImageClassifier]:
    """Train a new network at one constant learning rate.

    Every point starts from the same weights and trains on the same batches. ``model`` only provides its options;
    ``options`` are those of the probe's Trainer (``shared_options``).

    Returns:
        The point, and the classifier trained for it.
    """
    torch.manual_seed(datamodule.seed)
    fresh = at_constant_lr(model, lr)
    measure = LastQuarter(steps)
    with probe_trainer(max_epochs=-1, max_steps=steps, callbacks=[measure], **options) as trainer:
        trainer.fit(fresh, datamodule=datamodule)
        val_acc = None
        if datamodule.val_size and not measure.diverged:
            trainer.limit_val_batches = 1.0
            val_acc = trainer.validate(fresh, datamodule=datamodule, verbose=False)[0]["val/acc"]
    return measure.point(lr, val_acc, datamodule.val_size), fresh


def measure_points(
    lrs: list[float],
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    steps: int,
    options: dict[str, Any],
    parallel: int = 1,
) -> Iterator[LRPoint]:
    """Measure points, ``parallel`` at a time in separate processes, and yield each when it is finished."""
    if parallel == 1 or len(lrs) == 1:
        for lr in lrs:
            yield train_at(lr, model, datamodule, steps, options)[0]
        return
    processes = min(parallel, len(lrs))
    datamodule.trainer = None  # images are passed in shared memory, but a Trainer cannot be passed
    pool = ProcessPoolExecutor(
        processes,
        mp_context=torch.multiprocessing.get_context("spawn"),
        initializer=_start_process,
        initargs=(max(1, torch.get_num_threads() // processes), (model.hparams, datamodule, steps, options)),
    )
    try:
        for future in as_completed([pool.submit(_measure_in_process, lr) for lr in lrs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"`parallel` {parallel}: a process died, perhaps out of memory; continue with `resume` and fewer processes"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_shared: tuple[Any, ...] = ()


def _start_process(threads: int, shared: tuple[Any, ...]) -> None:
    global _shared
    torch.set_num_threads(threads)
    _shared = shared


def _measure_in_process(lr: float) -> LRPoint:
    hparams, datamodule, steps, options = _shared
    return train_at(lr, ImageClassifier(**hparams), datamodule, steps, options)[0]
