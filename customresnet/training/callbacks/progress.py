"""One progress bar for the whole run, so that it shows the run's remaining time."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from customresnet.runtime.formatting import percent
from customresnet.runtime.screen import interactive


class RunProgress(TQDMProgressBar):
    """A bar over all steps of the run with loss, accuracy and LR; no bar when the output is a file."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if interactive() else 0)
        self.bar: Tqdm | None = None

    def init_train_tqdm(self) -> Tqdm:
        self.bar = super().init_train_tqdm()
        self.bar.leave = False
        return self.bar

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_start(trainer)
        bar = self.train_progress_bar
        batches = (trainer.max_epochs or 0) * int(trainer.num_training_batches)
        bar.total = batches if trainer.max_steps == -1 else trainer.max_steps * trainer.accumulate_grad_batches
        bar.initial = bar.n = trainer.current_epoch * int(trainer.num_training_batches)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        bar = self.train_progress_bar
        # tqdm redraws at most ten times a second, and only then are metrics read from the device
        if not bar.disable and bar.update():
            bar.set_postfix(running_metrics(trainer, pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass  # the recorder prints a line for the epoch

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        if self.bar is not None and not self.bar.disable:
            self.bar.clear()
        print(*args, sep=sep, flush=True)


def running_metrics(trainer: pl.Trainer, model: Any) -> dict[str, str]:
    """Loss and accuracy of the epoch so far in this process, and the LR.

    Only the first of several processes draws a bar. A metric's own ``compute`` would wait for the others, so this
    calls the unsynchronized method of its class.
    """
    metrics = model.metrics["train_"]
    loss, accuracy = (type(metric).compute(metric).item() for metric in (metrics["loss"], metrics["acc"]))
    return {
        "loss": f"{loss:.4f}",
        "acc": percent(accuracy),
        "lr": f"{trainer.optimizers[0].param_groups[0]['lr']:.2e}",
    }
