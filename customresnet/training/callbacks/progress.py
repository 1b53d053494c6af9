"""One progress bar for the whole run, so that its time left is the run's."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from customresnet.runtime.screen import interactive


class RunProgress(TQDMProgressBar):
    """A bar over all steps of the run with loss, accuracy and LR beside it; no bar where the output is a file."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if interactive() else 0)

    def init_train_tqdm(self) -> Tqdm:
        bar = super().init_train_tqdm()
        bar.leave = False
        return bar

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
        # tqdm redraws ten times a second at most; only then is a figure fetched from the device
        if not bar.disable and bar.update():
            bar.set_postfix(self._figures(trainer, pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass  # the epoch's figures are a line of their own

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        bar = self._train_progress_bar
        if bar is not None and not bar.disable:
            bar.clear()
        print(*args, sep=sep, flush=True)

    @staticmethod
    def _figures(trainer: pl.Trainer, pl_module: Any) -> dict[str, str]:
        # Of several processes only this one draws a bar, so it shows its own share: a metric's own `compute`, which
        # torchmetrics wraps, would wait for the others to join in.
        metrics = pl_module.metrics["train_"]
        loss, accuracy = (type(metric).compute(metric).item() for metric in (metrics["loss"], metrics["acc"]))
        return {
            "loss": f"{loss:.4f}",
            "acc": f"{accuracy:.2%}",
            "lr": f"{trainer.optimizers[0].param_groups[0]['lr']:.2e}",
        }
