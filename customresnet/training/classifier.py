"""ImageClassifier: a network with its loss, metrics and optimizer."""

import math
from dataclasses import asdict
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

from customresnet.data.batches import Batch
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.models import Network, build_network, default_width, network_spec
from customresnet.runs.checkpoint import FORMAT, FORMAT_KEY, check_format
from customresnet.runs.state import check_optimizer_state
from customresnet.runtime.errors import UserError
from customresnet.runtime.trust import trust
from customresnet.schedules import Policy, PolicyName, policy_from_options
from customresnet.schedules.one_cycle import Anneal
from customresnet.schedules.triangular import CycleMode
from customresnet.training.checkpoints import check_progress_of
from customresnet.training.lightning import (
    attached_data,
    attached_trainer,
    can_fuse_optimizer,
    is_fast_dev_run,
    is_tuning,
    seed_batch,
)
from customresnet.training.metrics import reset, stage_metrics
from customresnet.training.optimizer import build_optimizer
from customresnet.training.options import OptimizerName, check_options, check_same_data, check_same_options

FAST_DEV_RUN_LR = 1e-3


class ImageClassifier(pl.LightningModule):
    """A network trained with cross-entropy on logits and a cyclical learning rate.

    Args:
        network: custom_resnet, advanced_net, advanced_net_original, or the import path of any nn.Module class (with
            arguments: class_path and init_args) that maps images (N, 3, H, W) to logits.
        width: Channels of the first convolution. Default: the network's own, 64 for custom_resnet, 32 for the others.
        dropout: Probability of dropping a unit after each ReLU of custom_resnet's layers 1 to 3, or a channel inside
            the blocks of the others; 0 is off.
        num_classes: Number of classes; set from the data.
        lr_max: Learning rate at the peak (LRMAX). Default: found by the LR range test that runs before fit.
        lr_min: Learning rate at both ends (LRMIN). Default: found by the same test.
        policy: one_cycle rises to LRMAX and falls back once; triangular repeats this throughout the run.
        momentum: Lowest and highest momentum (beta1 for Adam), cycled inversely to the learning rate; null keeps it at
            0.9.
        peak_epoch: For one_cycle, the epoch whose last step uses LRMAX. Default: 5/24 of the run.
        anneal: For one_cycle, the shape of both slopes.
        final_div_factor: For one_cycle, the last step's learning rate is LRMIN divided by this; 1: no annihilation.
        half_cycle: For triangular, the epochs from LRMIN to LRMAX. Default: 1/12 of the run.
        cycle_mode: For triangular: equal cycles, each half as high as the previous one, or shrinking at every step.
        cycle_gamma: For triangular with exp_range, the factor by which every step shrinks the cycle.
        optimizer: The optimizer.
        weight_decay: Strength of the weight decay: decoupled, or an L2 penalty added to the gradients.
        decoupled: Shrink the weights themselves, by the learning rate times weight_decay at every step (AdamW), and
            leave biases and normalization scales alone. Adam only.
        beta2: Adam's beta2, the decay of the running mean of squared gradients.
        label_smoothing: Probability that the loss to minimize spreads over all classes; the logged loss has none.
        compile: Compile the network with torch.compile. auto does not compile: on CPUs it was no faster, and GPUs are
            unmeasured (docs/performance.md).
    """

    def __init__(
        self,
        network: Network = "custom_resnet",
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
        decoupled: bool = False,
        beta2: float = 0.999,
        label_smoothing: float = 0.0,
        compile: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        net = build_network(network, num_classes, width, dropout)
        self.given_as_instance = isinstance(network, nn.Module)
        # checkpoints store the values used, as plain types
        network = network_spec(network)
        if isinstance(network, dict):
            trust(network["class_path"])  # so that the run's own checkpoint can be read
        width = default_width(network) if width is None else width
        self.save_hyperparameters()
        check_options(self.hparams)
        self.net = net
        self.preprocessing: Preprocessing | None = None
        self.log_training = True  # False if a RunRecorder logs the training metrics
        self._scheduled_steps: int | None = None
        self._resumed: dict[str, Any] | None = None  # the state that the optimizer will take
        self.metrics = stage_metrics(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images ``(N, 3, H, W)`` to logits ``(N, num_classes)``."""
        return self.net(images.contiguous(memory_format=torch.channels_last))

    def rebuild(self, **changes: Any) -> "ImageClassifier":
        """A new classifier with the same options, except for ``changes``, and new weights."""
        if self.given_as_instance:
            raise UserError(
                "`network` was given as an instance, which cannot be built again: give its class_path and init_args"
            )
        return ImageClassifier(**{**self.hparams, **changes})

    def on_train_start(self) -> None:
        if self.hparams["compile"] is True:
            self.trainer.print("compiling the network: the first steps take about a minute")
            self.net.compile(dynamic=False)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        seed_batch(self, batch_idx)

    def _step(self, batch: Batch, stage: str) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        metrics: Any = self.metrics[stage + "_"]
        metrics["loss"].update(loss.detach(), len(labels))  # without smoothing, as in evaluations
        metrics["acc"].update(logits.detach(), labels)
        self.log_dict(
            {f"{stage}/loss": metrics["loss"], f"{stage}/acc": metrics["acc"]},
            on_step=False,
            on_epoch=True,
            logger=self.log_training or stage != "train",
            batch_size=len(labels),
        )
        smoothing = self.hparams["label_smoothing"]
        return F.cross_entropy(logits, labels, label_smoothing=smoothing) if smoothing and stage == "train" else loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # without held-out images, the run is evaluated on the test set, and its metrics have that name
        data = attached_data(self)
        self._step(batch, "val" if data is not None and data.val_size else "test")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "test")

    def predict_step(self, batch: Tensor | Batch, batch_idx: int) -> Tensor:
        """Class probabilities ``(N, num_classes)`` of images with or without labels."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self(images).float().softmax(dim=1)

    def configure_optimizers(self) -> Any:
        """The optimizer, and the policy's scheduler, stepped per batch over exactly the length of the run.

        Raises:
            UserError: LRMAX or LRMIN is unknown, or a resumed run has a different length.
        """
        optimizer = self.new_optimizer(fused=can_fuse_optimizer(self))
        if None in (self.hparams["lr_max"], self.hparams["lr_min"]):
            if is_fast_dev_run(self.trainer) or is_tuning(self.trainer):
                return optimizer
            raise UserError(
                "the learning-rate bounds are unknown: pass `lr_max` and `lr_min` to ImageClassifier, or call "
                "customresnet.fit, which finds them with an LR range test"
            )
        self.trainer.fit_loop.setup_data()  # Lightning does not, for a run that only max_steps ends
        total = int(self.trainer.estimated_stepping_batches)
        per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        if self._scheduled_steps not in (None, total):
            raise UserError(
                f"the checkpoint's schedule is {self._scheduled_steps} steps long, this run's {total}: resume with the "
                "same `max_epochs` and `batch_size`, on the same images"
            )
        self._scheduled_steps = total
        scheduler = self.policy().scheduler(optimizer, total, per_epoch)
        if self._resumed:
            check_optimizer_state(self._resumed, optimizer, scheduler)
            self._resumed = None
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if self.trainer.global_step != self._scheduled_steps:  # a step beyond the end would leave LRMIN behind
            scheduler.step()

    def new_optimizer(self, *, fused: bool = False) -> Optimizer:
        """A new optimizer for the network's parameters."""
        return build_optimizer(self.net, self.hparams, self.lr or FAST_DEV_RUN_LR, fused=fused)

    @property
    def lr(self) -> float | None:  # the name that Lightning's Tuner sets
        """LRMAX."""
        return self.hparams["lr_max"]

    @lr.setter
    def lr(self, value: float) -> None:
        self.hparams["lr_max"] = value

    def policy(self, **bounds: float) -> Policy:
        """The learning-rate policy; ``lr_max`` and ``lr_min`` must be given here or known."""
        return policy_from_options({**self.hparams, **bounds})

    def setup(self, stage: str) -> None:
        self._scheduled_steps, self._resumed = None, None
        reset(self.metrics)  # an earlier evaluation may leave inference tensors, which training cannot update
        if (data := attached_data(self)) and stage == "fit":
            self.preprocessing = data.preprocessing
        elif data and self.preprocessing:
            data.adopt(self.preprocessing)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[FORMAT_KEY] = FORMAT
        checkpoint["scheduled_steps"] = self._scheduled_steps
        if self.preprocessing:
            checkpoint["preprocessing"] = asdict(self.preprocessing)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the checkpoint's classes and normalization.

        Raises:
            UserError: It was trained with another network, on other data or, to be resumed, with another optimizer.
        """
        check_format(checkpoint)
        # `max_time` is this part's, not the whole run's
        callbacks = checkpoint.get("callbacks", {})
        checkpoint["callbacks"] = {key: state for key, state in callbacks.items() if not key.startswith("Timer")}
        if "preprocessing" not in checkpoint:
            return
        trainer, data = attached_trainer(self), attached_data(self)
        self.preprocessing = Preprocessing.from_checkpoint(checkpoint)
        if data is not None:
            data.adopt(self.preprocessing)
            check_same_data(self.preprocessing, data.preprocessing)
        resumed = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        check_same_options(checkpoint["hyper_parameters"], self.hparams, resumed=resumed)
        self._scheduled_steps = checkpoint.get("scheduled_steps")
        if trainer is not None and resumed:
            check_progress_of(trainer, self.metrics["train_"], checkpoint)
            self._resumed = checkpoint
