"""RunRecorder: record every epoch of a run in epochs.csv, on the screen and in TensorBoard."""

import copy
import math
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import SIGTERMException

from customresnet.data.batches import Batch, InMemoryDataset, SeededBatchSampler
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.transforms.policy import denormalize
from customresnet.runs.files import EpochMetrics, write_metrics
from customresnet.runtime.files import shown
from customresnet.runtime.pictures import image_grid
from customresnet.schedules.schedule import momentum_of
from customresnet.training.checkpoints import last_checkpoint_path
from customresnet.training.classifier import ImageClassifier
from customresnet.training.lightning import datamodule_of, is_fast_dev_run, log_folder, tensorboard_loggers
from customresnet.training.logger import failures_as_warnings
from customresnet.training.messages import announce, epoch_line, write_errors_as_warnings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPOCH_METRICS = "epoch_metrics"
"""Key of the training metrics of an unfinished epoch in a checkpoint."""


class RunRecorder(pl.Callback):
    """Record a run. Checkpoints contain the record, so a resumed run continues it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start a new record."""
        self.rows: list[EpochMetrics] = []
        self.images = 0  # trained on
        self._seconds_before = 0.0
        self._clock: float | None = None
        self._lr = float("nan")
        self._evaluated_at = -1

    @property
    def seconds(self) -> float:
        """Seconds of training and its evaluations, over all parts of a resumed run."""
        return self._seconds_before + (time.monotonic() - self._clock if self._clock else 0.0)

    def stop_clock(self) -> None:
        """Stop counting ``seconds``, when training ends."""
        self._seconds_before, self._clock = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds, "images": self.images, "lr": self._lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self._seconds_before, self.images = state_dict["seconds"], state_dict.get("images", 0)
        self._lr = state_dict.get("lr", self._lr)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        for logger in tensorboard_loggers(trainer):  # what the checkpoint has is in TensorBoard too
            with failures_as_warnings(logger):
                logger.experiment.flush()
        # within an epoch, store its metrics so far; not for several processes, whose metrics would be merged
        begun = trainer.fit_loop.epoch_loop.batch_progress.current.ready > 0
        recorded = bool(self.rows) and self.rows[-1]["epoch"] == trainer.current_epoch + 1
        if begun and not recorded and isinstance(pl_module, ImageClassifier):
            metrics: Any = pl_module.metrics["train_"] if trainer.world_size == 1 else {}
            checkpoint[EPOCH_METRICS] = {name: metric.metric_state for name, metric in metrics.items()}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if checkpoint.get(EPOCH_METRICS) == {}:
            announce(trainer, "note: the first epoch's training metrics cover only its part after the resume")
        for name, state in checkpoint.get(EPOCH_METRICS, {}).items():
            for key, value in state.items():
                setattr(pl_module.metrics["train_"][name], key, value)

    @property
    def state_key(self) -> str:
        return "RunLog"  # its former name, which older checkpoints contain

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and isinstance(pl_module, ImageClassifier):  # the first process found the learning rates
            bounds = [pl_module.hparams[name] for name in ("lr_max", "lr_min")]
            pl_module.hparams["lr_max"], pl_module.hparams["lr_min"] = trainer.strategy.broadcast(bounds)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log_training = False  # type: ignore[assignment]  # see _log_training

    def on_train_start(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        data = datamodule_of(trainer)
        if trainer.is_global_zero and data and trainer.global_step == 0:
            from matplotlib.image import imread

            for logger in tensorboard_loggers(trainer):
                with failures_as_warnings(logger):
                    show_start(logger.experiment, pl_module, data)
                    if trainer.ckpt_path and (picture := Path(logger.log_dir) / "lr_find.png").is_file():
                        logger.experiment.add_image("LR range test", imread(picture), dataformats="HWC")
        self._clock = time.monotonic()

    def on_train_batch_start(self, trainer: Any, pl_module: pl.LightningModule, batch: Batch, *_: Any) -> None:
        group = trainer.optimizers[0].param_groups[0]
        self._lr = group["lr"]
        if isinstance(batch, tuple | list):
            self.images += len(batch[1]) * trainer.world_size
        # Lightning's LearningRateMonitor would copy both to a GPU and synchronize at every step
        if trainer.logger and trainer.log_every_n_steps and trainer.global_step % trainer.log_every_n_steps == 0:
            for logger in trainer.loggers:
                logger.log_metrics({"lr": self._lr, "lr-momentum": momentum_of(group)}, trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluated_at = trainer.global_step
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and not progress.is_last_batch:
            part = progress.current.completed / trainer.num_training_batches
            self._record(trainer, trainer.current_epoch + part, ("val/", "test/"))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # without an evaluation in this epoch, Lightning keeps the metrics of an earlier one
        evaluated = self._evaluated_at == trainer.global_step
        if isinstance(pl_module, ImageClassifier):
            self._log_training(trainer, pl_module)
        self._record(trainer, trainer.current_epoch + 1, ("train/", "val/", "test/") if evaluated else ("train/",))
        if not math.isfinite(self.rows[-1].get("train/loss", 0.0) if self.rows else 0.0):
            trainer.should_stop = True

    def _log_training(self, trainer: pl.Trainer, model: ImageClassifier) -> None:
        """Log the epoch's training metrics now: Lightning would after the checkpoint, and a kill would lose them."""
        metrics: Any = model.metrics["train_"]
        if "train/loss" not in trainer.callback_metrics:  # resumed after the epoch's last step
            for name, metric in metrics.items():
                trainer.callback_metrics[f"train/{name}"] = metric.compute()
                metric.reset()
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **values}, trainer.global_step - 1)

    def _record(self, trainer: pl.Trainer, epoch: float, stages: tuple[str, ...]) -> None:
        """Record the metrics of these stages, after an epoch or at an evaluation within one."""
        if is_fast_dev_run(trainer) or trainer.barebones:
            return
        metrics = {k: float(v) for k, v in sorted(trainer.callback_metrics.items()) if k.startswith(stages)}
        row = {"epoch": epoch, "step": trainer.global_step, "lr": self._lr, **metrics}
        self.rows.append(row)
        announce(trainer, epoch_line(row, trainer, datamodule_of(trainer)))
        self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write epochs.csv."""
        folder = log_folder(trainer)
        if trainer.is_global_zero and folder:
            with write_errors_as_warnings(trainer, "epochs.csv"):
                write_metrics(folder, self.rows)

    def on_exception(self, trainer: Any, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        what = {KeyboardInterrupt: "interrupted", SIGTERMException: "terminated"}.get(type(exception), "failed")
        if what == "failed":
            for dead in dead_processes(trainer):
                announce(trainer, dead)
        kept = f"epochs 1 to {len(self.rows)} are kept" if self.rows else "no epoch was finished"
        checkpoint = last_checkpoint_path(trainer)
        if checkpoint is None or not checkpoint.is_file():
            announce(trainer, f"{what}: {kept}; start again")
            return
        run = shlex.quote(str(shown(log_folder(trainer) or checkpoint)))
        if what == "terminated":
            kept = f"all {trainer.global_step} steps are kept"
        announce(trainer, f"{what}: {kept}; resume with: fit --ckpt_path {run}")


def dead_processes(trainer: pl.Trainer) -> list[str]:
    """A sentence about each process of this run that has failed; torchrun reports those that it started itself."""
    processes = getattr(trainer.strategy.launcher, "procs", [])
    deadline = time.monotonic() + 2  # the lost connection may be noticed before the end of its process
    while processes and time.monotonic() < deadline and not any(process.poll() for process in processes):
        time.sleep(0.05)
    codes = {i + 1: process.poll() for i, process in enumerate(processes)}
    reasons = {rank: f"signal {-code}" if code < 0 else f"exit code {code}" for rank, code in codes.items() if code}
    return [f"the process of rank {trainer.global_rank + rank} ended with {reason}" for rank, reason in reasons.items()]


def show_start(writer: Any, model: Any, datamodule: CIFAR10DataModule) -> None:
    """Write the layout of the curves, a grid of training images and, if the model has a ``net``, its graph."""
    stage = "val" if datamodule.val_size else "test"
    writer.add_custom_scalars(
        {"curves": {name: ["Multiline", [f"train/{name}", f"{stage}/{name}"]] for name in ("loss", "acc")}}
    )
    writer.add_figure("training images, augmented", augmented_grid(datamodule))
    if (network := getattr(model, "net", None)) is not None:
        size = datamodule.preprocessing.image_size
        with suppress(RuntimeError):  # torch.jit cannot trace every network
            writer.add_graph(copy.deepcopy(network).cpu().float().eval(), torch.zeros(1, 3, size, size))


def augmented_grid(datamodule: CIFAR10DataModule) -> "Figure":
    """The first training images of epoch 1 after augmentation, with their labels."""
    data, columns = datamodule.train_images, 8
    sampler = SeededBatchSampler(len(data), min(4 * columns, len(data)), datamodule.seed, shuffle=True)
    images, labels = InMemoryDataset(data, datamodule.transforms(augment=True))[next(iter(sampler))]
    pixels = denormalize(images, datamodule.mean, datamodule.std)
    names = [data.classes[label] for label in labels]
    return image_grid(pixels.numpy(), names, columns, width=1.2 * columns, classes=data.classes)
