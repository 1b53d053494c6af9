"""ImageClassifier: a network, its loss and metrics, and how it is optimised."""

import math
from dataclasses import asdict, fields
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from customresnet.data.batches import Batch, derive_seed
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.models import NetworkName, build_network, default_width
from customresnet.runtime.errors import UserError
from customresnet.schedules import POLICIES, Policy, PolicyName
from customresnet.schedules.one_cycle import Anneal
from customresnet.schedules.triangular import CycleMode
from customresnet.training.mean_loss import MeanLoss

FAST_DEV_RUN_LR = 1e-3
NETWORK_OPTIONS = ("network", "width", "num_classes")
SCHEDULE_OPTIONS = tuple(dict.fromkeys(field.name for policy in POLICIES.values() for field in fields(policy)))
OPTIMIZER_OPTIONS = ("policy", *SCHEDULE_OPTIONS, "optimizer", "weight_decay")

OptimizerName = Literal["adam", "sgd"]


class ImageClassifier(pl.LightningModule):
    """A network trained with cross-entropy on logits and a cyclical learning rate.

    Args:
        network: Which network.
        width: Channels of its first convolution. Default: the network's own: 64 of custom_resnet, 32 of the others.
        dropout: Probability of dropping a unit after each ReLU of custom_resnet's layers 1 to 3, or a channel inside
            the others' blocks; 0 is off.
        num_classes: Number of classes; set from the data.
        lr_max: Learning rate at the peak (LRMAX). Default: found by the LR range test that runs before fit.
        lr_min: Learning rate at both ends (LRMIN). Default: found likewise.
        policy: one_cycle goes up to LRMAX and down once; triangular goes up and down again and again.
        momentum: Lowest and highest momentum (Adam's beta1), cycled against the learning rate; null leaves it at 0.9.
        peak_epoch: For one_cycle, the epoch at whose last step LRMAX is reached. Default: 5/24 of the run.
        anneal: For one_cycle, the shape of both slopes.
        final_div_factor: For one_cycle, LRMIN divided by this is the last step's learning rate; 1 is no annihilation.
        half_cycle: For triangular, the epochs from LRMIN to LRMAX. Default: 1/12 of the run.
        cycle_mode: For triangular: all cycles alike, each half as high as the last, or shrinking with every step.
        cycle_gamma: For triangular with exp_range, the factor by which each step shrinks the cycle's height.
        optimizer: What makes steps of gradients.
        weight_decay: L2 penalty that the optimizer adds to the gradients.
        compile: Compile the network with torch.compile. auto does where that was measured to pay, which so far is
            nowhere: on CPUs it was measured not to, and GPUs are still to be measured (docs/performance.md).
    """

    def __init__(
        self,
        network: NetworkName = "custom_resnet",
        width: int | None = None,
        dropout: float = 0.0,
        num_classes: int = 10,
        lr_max: float | None = None,
        lr_min: float | None = None,
        policy: PolicyName = "one_cycle",
        momentum: tuple[float, float] | None = (0.85, 0.95),
        peak_epoch: float | None = None,
        anneal: Anneal = "linear",
        final_div_factor: float = 1.0,
        half_cycle: float | None = None,
        cycle_mode: CycleMode = "triangular",
        cycle_gamma: float = 0.999,
        optimizer: OptimizerName = "adam",
        weight_decay: float = 0.0,
        compile: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        width = default_width(network) if width is None else width  # a checkpoint is to know what was used
        self.save_hyperparameters()
        self._check_options()
        self.net = build_network(network, num_classes, width, dropout)
        self.net.to(memory_format=torch.channels_last)
        self.preprocessing: Preprocessing | None = None
        self._scheduled_steps: int | None = None
        self.metrics = nn.ModuleDict(  # "train" alone is a method of every module
            {
                stage: nn.ModuleDict({"loss": MeanLoss(), "acc": MulticlassAccuracy(num_classes, average="micro")})
                for stage in ("train_", "val_", "test_")
            }
        )

    def _check_options(self) -> None:
        h: Any = self.hparams
        for name in ("lr_max", "lr_min", "peak_epoch", "half_cycle"):
            value = h[name]
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"--model.{name} must be positive; received {value}")
        if h["lr_max"] is not None and h["lr_min"] is not None and h["lr_max"] < h["lr_min"]:
            raise UserError(f"--model.lr_max {h['lr_max']:g} is below --model.lr_min {h['lr_min']:g}")
        momentum = h["momentum"]
        if momentum is not None and not 0 <= momentum[0] <= momentum[1] < 1:
            raise UserError(f"--model.momentum is lowest and highest, from 0 to below 1; received {list(momentum)}")
        if not 1 <= h["final_div_factor"] < math.inf:
            raise UserError(f"--model.final_div_factor must be at least 1; received {h['final_div_factor']}")
        if not 0 < h["cycle_gamma"] <= 1:
            raise UserError(f"--model.cycle_gamma must be above 0 and at most 1; received {h['cycle_gamma']}")
        self._refuse_options_of_other_policies()
        if h["weight_decay"] < 0:
            raise UserError(f"--model.weight_decay must be 0 or more; received {h['weight_decay']}")

    def _refuse_options_of_other_policies(self) -> None:
        own = {field.name for field in fields(POLICIES[self.hparams["policy"]])}
        for other, policy in POLICIES.items():
            for field in fields(policy):
                if field.name not in own and self.hparams[field.name] != field.default:
                    raise UserError(
                        f"--model.{field.name} {self.hparams[field.name]} belongs to --model.policy {other}; "
                        f"received --model.policy {self.hparams['policy']}"
                    )

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, 3, H, W)``, normalised, to logits ``(N, num_classes)``."""
        return self.net(images.contiguous(memory_format=torch.channels_last))

    # -------------------------------------------------------------------------------------------------------- steps

    def on_train_start(self) -> None:
        if self.hparams["compile"] is True:
            self.trainer.print("compiling the network: the first steps take about a minute")
            self.net.compile(dynamic=False)

    def _step(self, batch: Batch, stage: str) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        metrics: Any = self.metrics[stage + "_"]
        metrics["loss"].update(loss.detach(), len(labels))
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
        torch.manual_seed(derive_seed(seed, self.current_epoch, self.global_rank, batch_idx))

    # ------------------------------------------------------------------------------------------------- optimisation

    def configure_optimizers(self) -> Any:
        """The optimizer, stepped along the policy's curve; a constant LR while the bounds are still unknown."""
        # Lightning cannot clip the gradients of a fused optimizer under mixed precision.
        fused = self.trainer.gradient_clip_val is None and self.device.type in ("cpu", "cuda")
        optimizer = self.new_optimizer(fused=fused)
        if None in (self.hparams["lr_max"], self.hparams["lr_min"]):
            return optimizer
        self.trainer.fit_loop.setup_data()  # Lightning does not, for a run that only max_steps ends
        total = int(self.trainer.estimated_stepping_batches)
        per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        if self._scheduled_steps not in (None, total):
            raise UserError(
                f"the checkpoint's schedule is {self._scheduled_steps} steps long, this run's {total}: go on with the "
                "same --trainer.max_epochs and --data.batch_size, on the same images"
            )
        self._scheduled_steps = total
        scheduler = self.policy().scheduler(optimizer, total, per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}

    def new_optimizer(self, *, fused: bool = False) -> Optimizer:
        """An optimizer of the network's parameters."""
        h: Any = self.hparams
        options = {"lr": h["lr_max"] or FAST_DEV_RUN_LR, "weight_decay": h["weight_decay"], "fused": fused}
        if h["optimizer"] == "sgd":
            return torch.optim.SGD(self.parameters(), momentum=0.9, **options)
        return torch.optim.Adam(self.parameters(), **options)

    def policy(self, **bounds: float) -> Policy:
        """The policy of the learning rate; ``lr_max`` and ``lr_min`` must be given here or be known."""
        kind = POLICIES[self.hparams["policy"]]
        options = {field.name: self.hparams[field.name] for field in fields(kind)} | bounds
        options["momentum"] = tuple(options["momentum"]) if options["momentum"] else None
        return kind(**options)

    def at_constant_lr(self, lr: float) -> "ImageClassifier":
        """A fresh network with this one's options, but a constant learning rate and the optimizer's own momentum."""
        policies = {field.name: field.default for policy in POLICIES.values() for field in fields(policy)}
        constant = {"policy": "one_cycle", "lr_max": lr, "lr_min": lr, "momentum": None}
        return ImageClassifier(**{**self.hparams, **policies, **constant})

    def check_schedule(self, epochs: float) -> None:
        """Refuse a run, ``epochs`` long, that the policy does not fit, before anything is computed."""
        if not math.isfinite(epochs):
            raise UserError("the learning rate's policy needs an end: pass --trainer.max_epochs or --trainer.max_steps")
        if epochs <= 0:
            raise UserError("there is nothing to train: --trainer.max_epochs or --trainer.max_steps is 0")
        for name in ("peak_epoch", "half_cycle"):
            value = self.hparams[name]
            if value is not None and value > epochs:
                raise UserError(
                    f"--model.{name} {value:g} is beyond the run of {epochs:g} epochs "
                    "(--trainer.max_epochs, --trainer.max_steps): LRMAX would never be reached"
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
        self.preprocessing = Preprocessing.from_checkpoint(checkpoint)
        if data is not None:
            for name in ("classes", "mean", "std", "image_size"):
                flag = f"the classes of --data.source {data.source}" if name == "classes" else f"--data.{name}"
                refuse_contradiction(flag, getattr(self.preprocessing, name), getattr(data.preprocessing, name))
        resumed = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        saved = checkpoint["hyper_parameters"]
        for name in NETWORK_OPTIONS + (OPTIMIZER_OPTIONS if resumed else ()):
            if name in saved:  # an older checkpoint knows fewer options
                refuse_contradiction(f"--model.{name}", saved[name], self.hparams[name])
        self._scheduled_steps = checkpoint.get("scheduled_steps")


def refuse_contradiction(flag: str, saved: Any, own: Any) -> None:
    """Raise a UserError if an option differs from the one that a checkpoint was trained with."""
    saved, own = (list(value) if isinstance(value, tuple) else value for value in (saved, own))
    if saved != own:
        raise UserError(f"{flag}: received {own}, but the checkpoint was trained with {saved}")
