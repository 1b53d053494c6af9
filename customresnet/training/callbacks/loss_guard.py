"""LossGuard: stop a run whose training loss is not a number any more, or explodes."""

import copy
import math
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch

from customresnet.data.batches import TrainingLoader
from customresnet.runtime.files import shown
from customresnet.training.lightning import log_folder
from customresnet.training.messages import announce

EXPLODED = 1000
"""A loss of more than this many times that of chance, ln(classes), has exploded."""
READ_EVERY = 25
"""Batches between two readings of the loss on a GPU or in several processes, each of which makes them wait."""
FILE = "diverged_batch.pt"


class LossGuard(pl.Callback):
    """Stop a run at the first batch whose loss is not finite or explodes, and save this batch for study.

    The weights after it are in no checkpoint: that of the epoch before remains.
    """

    diverged = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.diverged = False
        self.limit = EXPLODED * math.log(max(2, pl_module.hparams.get("num_classes", 2)))
        self.batch_idx = torch.tensor(-1, device=pl_module.device)  # of the first such batch in the epoch
        self.loss = torch.tensor(0.0, device=pl_module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not isinstance(outputs, dict):
            return
        loss = outputs["loss"].float() * trainer.accumulate_grad_batches
        first = (self.batch_idx < 0) & ~(loss <= self.limit)  # NaN compares as False
        self.batch_idx, self.loss = (
            torch.where(first, new, old) for new, old in ((batch_idx, self.batch_idx), (loss, self.loss))
        )
        every = 1 if loss.device.type == "cpu" and trainer.world_size == 1 else READ_EVERY
        if batch_idx % every == 0 or trainer.is_last_batch:
            self._stop_if_diverged(trainer)

    def _stop_if_diverged(self, trainer: pl.Trainer) -> None:
        batch_idx = int(self.batch_idx)
        if trainer.should_stop or not trainer.strategy.reduce_boolean_decision(batch_idx >= 0, all=False):
            return
        trainer.should_stop = self.diverged = True  # in every process
        if batch_idx < 0:
            return
        where = f"batch {batch_idx + 1} of epoch {trainer.current_epoch + 1}"
        rate = f"LR {trainer.optimizers[0].param_groups[0]['lr']:.2e}"
        saved = save_batch(trainer, batch_idx)
        announce(trainer, f"the training loss is {float(self.loss):.4g} at {where} ({rate}): training stops{saved}")


def save_batch(trainer: pl.Trainer, batch_idx: int) -> str:
    """Write a training batch of the current epoch for study; return words that say where."""
    loader, folder = trainer.train_dataloader, log_folder(trainer)
    if folder is None or not isinstance(loader, TrainingLoader):
        return ""
    sampler = copy.copy(loader.sampler)
    sampler.first_batch = 0
    sampler.set_epoch(trainer.current_epoch)
    images, labels = loader.dataset[next(islice(sampler, batch_idx, None))]
    content = {
        "images": images.cpu(),
        "labels": labels.cpu(),
        "epoch": trainer.current_epoch + 1,
        "batch": batch_idx + 1,
    }
    try:
        torch.save(content, folder / FILE)
    except (OSError, RuntimeError) as error:
        return f"; its batch could not be written ({error})"
    return f"; its batch is in {shown(folder / FILE)}"
