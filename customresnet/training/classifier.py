"""ImageClassifier: a network, its loss and metrics, and how it is optimised."""

import math
from dataclasses import asdict
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from customresnet.data.batches import Batch, fold
from customresnet.data.datamodule import CIFAR10DataModule, Preprocessing
from customresnet.errors import UserError
from customresnet.models import NETWORKS
from customresnet.training.one_cycle import Anneal, OneCycle

FAST_DEV_RUN_LR = 1e-3
NETWORK_OPTIONS = ("network", "width", "num_classes")
SCHEDULE_OPTIONS = ("lr_max", "lr_min", "peak_epoch", "anneal", "momentum", "weight_decay")


class ImageClassifier(pl.LightningModule):
    """A network trained with Adam, cross-entropy on logits and the One Cycle policy.

    Args:
        network: Which network.
        width: Channels of its first convolution; 64 gives 6,573,130 parameters.
        dropout: Probability of dropping a unit after each ReLU of layers 1 to 3; 0 is off.
        num_classes: Number of classes; set from the data.
        lr_max: Learning rate at the peak (LRMAX). Default: found by the LR range test that runs before fit.
        lr_min: Learning rate at both ends (LRMIN). Default: found likewise.
        peak_epoch: Epoch at whose last step LRMAX is reached. Default: 5/24 of the run.
        anneal: Shape of the schedule's slopes.
        momentum: Lowest and highest beta1, cycled against the learning rate; null leaves it at 0.9.
        weight_decay: L2 penalty that Adam adds to the gradients.
        compile: Compile the network with torch.compile: slower to start, faster per step.
    """

    def __init__(
        self,
        network: Literal["custom_resnet"] = "custom_resnet",
        width: int = 64,
        dropout: float = 0.0,
        num_classes: int = 10,
        lr_max: float | None = None,
        lr_min: float | None = None,
        peak_epoch: float | None = None,
        anneal: Anneal = "linear",
        momentum: tuple[float, float] | None = (0.85, 0.95),
        weight_decay: float = 0.0,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._check_options()
        self.net: nn.Module = NETWORKS[network](num_classes=num_classes, width=width, dropout=dropout)
        self.net.to(memory_format=torch.channels_last)
        if compile:
            self.net.compile(dynamic=False)
        self.preprocessing: Preprocessing | None = None
        self._scheduled_steps: int | None = None
        self.metrics = nn.ModuleDict(  # "train" alone is a method of every module
            {
                stage: nn.ModuleDict({"loss": MeanMetric(), "acc": MulticlassAccuracy(num_classes, average="micro")})
                for stage in ("train_", "val_", "test_")
            }
        )

    def _check_options(self) -> None:
        h: Any = self.hparams
        if h["width"] < 1:
            raise UserError(f"--model.width must be at least 1; received {h['width']}")
        if not 0 <= h["dropout"] < 1:
            raise UserError(f"--model.dropout must be from 0 to below 1; received {h['dropout']}")
        for name in ("lr_max", "lr_min", "peak_epoch"):
            value = h[name]
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"--model.{name} must be positive; received {value}")
        if h["lr_max"] is not None and h["lr_min"] is not None and h["lr_max"] < h["lr_min"]:
            raise UserError(f"--model.lr_max {h['lr_max']:g} is below --model.lr_min {h['lr_min']:g}")
        momentum = h["momentum"]
        if momentum is not None and not 0 <= momentum[0] <= momentum[1] < 1:
            raise UserError(f"--model.momentum is lowest and highest, from 0 to below 1; received {list(momentum)}")
        if h["weight_decay"] < 0:
            raise UserError(f"--model.weight_decay must be 0 or more; received {h['weight_decay']}")

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, 3, H, W)``, normalised, to logits ``(N, num_classes)``."""
        return self.net(images.contiguous(memory_format=torch.channels_last))

    # -------------------------------------------------------------------------------------------------------- steps

    def _step(self, batch: Batch, stage: str) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        metrics: Any = self.metrics[stage + "_"]
        metrics["loss"].update(loss.detach(), weight=len(labels))
        metrics["acc"].update(logits.detach(), labels)
        self.log_dict(
            {f"{stage}/loss": metrics["loss"], f"{stage}/acc": metrics["acc"]},
            on_step=False,
            on_epoch=True,
            batch_size=len(labels),
        )
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # Without held-out images the run is watched on the test set, and the figures say so by their name.
        self._step(batch, "val" if self._holds_out else "test")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "test")

    def predict_step(self, images: Tensor, batch_idx: int) -> Tensor:
        """Class probabilities ``(N, num_classes)``."""
        return self(images).float().softmax(dim=1)

    @property
    def _holds_out(self) -> bool:
        return self._data is not None and self._data.val_size > 0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # So dropout too is a function of (seed, epoch, batch), and a resumed run draws what the whole one drew.
        seed = self._data.seed if self._data else 0
        torch.manual_seed(fold(seed, self.current_epoch, self.global_rank, batch_idx))

    # ------------------------------------------------------------------------------------------------- optimisation

    def configure_optimizers(self) -> Any:
        """Adam, stepped along the One Cycle curve; a constant LR while the bounds are still unknown."""
        h: Any = self.hparams
        # Lightning cannot clip the gradients of a fused optimizer under mixed precision.
        fused = self.trainer.gradient_clip_val is None and self.device.type in ("cpu", "cuda")
        known = h["lr_max"] is not None and h["lr_min"] is not None
        rate = h["lr_max"] if known else FAST_DEV_RUN_LR
        optimizer: Optimizer = torch.optim.Adam(self.parameters(), lr=rate, weight_decay=h["weight_decay"], fused=fused)
        if not known:
            return optimizer
        total = int(self.trainer.estimated_stepping_batches)
        per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        if self._scheduled_steps not in (None, total):
            raise UserError(
                f"the checkpoint's schedule is {self._scheduled_steps} steps long, this run's {total}: go on with the "
                "same --trainer.max_epochs and --data.batch_size, on the same images"
            )
        self._scheduled_steps = total
        scheduler = self.one_cycle.scheduler(optimizer, total, per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}

    def check_schedule(self, epochs: float) -> None:
        """Refuse a run, ``epochs`` long, that One Cycle does not fit, before anything is computed."""
        if not math.isfinite(epochs):
            raise UserError("One Cycle needs an end: pass --trainer.max_epochs or --trainer.max_steps")
        if epochs <= 0:
            raise UserError("there is nothing to train: --trainer.max_epochs or --trainer.max_steps is 0")
        peak = self.hparams["peak_epoch"]
        if peak is not None and peak > epochs:
            raise UserError(
                f"--model.peak_epoch {peak:g} is beyond the run of {epochs:g} epochs "
                "(--trainer.max_epochs, --trainer.max_steps)"
            )

    @property
    def one_cycle(self) -> OneCycle:
        """The policy; only once both bounds are known."""
        h: Any = self.hparams
        return OneCycle(
            h["lr_max"], h["lr_min"], h["peak_epoch"], h["anneal"], tuple(h["momentum"]) if h["momentum"] else None
        )

    # -------------------------------------------------------------------------------------------------- checkpoints

    def setup(self, stage: str) -> None:
        self._scheduled_steps = None
        for metric in self.metrics.modules():
            if isinstance(metric, Metric):
                metric.reset()  # an earlier evaluation may have left inference tensors, which training cannot update
        if stage == "fit" and self._data is not None:
            self.preprocessing = self._data.preprocessing

    @property
    def _data(self) -> CIFAR10DataModule | None:
        return getattr(self.trainer, "datamodule", None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.preprocessing:
            checkpoint["preprocessing"] = asdict(self.preprocessing)
        checkpoint["scheduled_steps"] = self._scheduled_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the checkpoint's classes and constants; another network, other data or another schedule is refused."""
        if "preprocessing" not in checkpoint:
            return
        trainer, data = self._trainer, self._data if self._trainer else None
        self.preprocessing = Preprocessing.of_checkpoint(checkpoint)
        if data is not None:
            for name in ("classes", "mean", "std", "image_size"):
                flag = f"the classes of --data.source {data.source}" if name == "classes" else f"--data.{name}"
                refuse_contradiction(flag, getattr(self.preprocessing, name), getattr(data.preprocessing, name))
        resumed = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        for name in NETWORK_OPTIONS + (SCHEDULE_OPTIONS if resumed else ()):
            refuse_contradiction(f"--model.{name}", checkpoint["hyper_parameters"].get(name), self.hparams[name])
        self._scheduled_steps = checkpoint.get("scheduled_steps")


def refuse_contradiction(flag: str, saved: Any, own: Any) -> None:
    """Raise a UserError if an option differs from the one that a checkpoint was trained with."""
    saved, own = (list(value) if isinstance(value, tuple) else value for value in (saved, own))
    if saved != own:
        raise UserError(f"{flag}: received {own}, but the checkpoint was trained with {saved}")
