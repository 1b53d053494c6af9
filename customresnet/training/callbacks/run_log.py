"""Record a run: metrics.csv, TensorBoard pictures, one line an epoch, and result.json at the end."""

import copy
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn

from customresnet.data.batches import Batch, InMemoryDataset, SeededBatchSampler
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.transforms.batch_backend import BatchBackend
from customresnet.data.transforms.policy import denormalize
from customresnet.runs import folders as runs
from customresnet.runtime import files
from customresnet.runtime.pictures import image_grid
from customresnet.schedules.schedule import momentum_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = (4, 8)


class RunLog(pl.Callback):
    """Write down what happens. Its state travels in the checkpoint, so a resumed run goes on with its own history."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new run begins."""
        self.rows: list[dict[str, float]] = []
        self.images = 0  # trained on
        self._seconds_before = 0.0
        self._clock: float | None = None
        self._lr = float("nan")
        self._evaluated_at = -1

    @property
    def last(self) -> dict[str, float]:
        """The last epoch's figures."""
        return self.rows[-1]

    @last.setter
    def last(self, figures: dict[str, float]) -> None:
        self.rows[-1] = figures

    # ------------------------------------------------------------------------------------------------ Lightning's hooks

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds, "images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self._seconds_before, self.images = state_dict["seconds"], state_dict.get("images", 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(trainer.logger, TensorBoardLogger) and trainer.is_global_zero:
            self._draw(trainer.logger.experiment, trainer, pl_module)
        self._clock = time.monotonic()

    def on_train_batch_start(self, trainer: Any, pl_module: pl.LightningModule, batch: Batch, *_: Any) -> None:
        group = trainer.optimizers[0].param_groups[0]
        self._lr = group["lr"]
        self.images += len(batch[1]) * trainer.world_size
        # Lightning's LearningRateMonitor would copy both to a GPU, and wait for it, each step
        if trainer.logger and trainer.log_every_n_steps and trainer.global_step % trainer.log_every_n_steps == 0:
            trainer.logger.log_metrics({"lr": self._lr, "lr-momentum": momentum_of(group)}, trainer.global_step)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training and its evaluations, over all parts of a resumed run."""
        return self._seconds_before + (time.monotonic() - self._clock if self._clock else 0.0)

    def stop_clock(self) -> None:
        """Leave what comes after training out of ``seconds``."""
        self._seconds_before, self._clock = self.seconds, None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluated_at = trainer.global_step

    def on_train_epoch_end(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        folder = trainer.log_dir  # asks all processes
        if trainer.fast_dev_run:
            return
        # Lightning keeps an older evaluation's figures where this epoch had none
        stages = ("train/", "val/", "test/") if self._evaluated_at == trainer.global_step else ("train/",)
        metrics = {k: float(v) for k, v in sorted(trainer.callback_metrics.items()) if k.startswith(stages)}
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "lr": self._lr, **metrics}
        self.rows.append(row)
        trainer.print(epoch_line(row, trainer))
        if trainer.logger is not None and trainer.is_global_zero:
            files.write_atomically(Path(folder) / "metrics.csv", files.as_csv(self.rows))

    def on_exception(self, trainer: Any, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.state.fn == TrainerFn.FITTING:
            kept = f"epochs 1 to {len(self.rows)} are kept" if self.rows else "no epoch was finished"
            folder = files.shown(Path(trainer.log_dir)) if trainer.logger is not None else "PATH"
            trainer.print(f"interrupted: {kept}" + (f"; go on with: fit --ckpt_path {folder}" if self.rows else ""))

    # ---------------------------------------------------------------------------------------------------------- results

    def finish(self, trainer: Any, model: Any) -> None:
        """Write result.json, fill TensorBoard's hparams tab and say how the run ended."""
        folder, datamodule = trainer.log_dir, trainer.datamodule
        metrics = {name: value for name, value in self.last.items() if "/" in name}
        limit = trainer.limit_test_batches if datamodule.val_size else trainer.limit_val_batches
        total = images_seen(len(datamodule.test_images), datamodule.batch_size, limit, trainer.world_size)
        tested = "test/acc" in metrics
        result = {
            **metrics,
            **({"test/correct": round(metrics["test/acc"] * total), "test/images": total} if tested else {}),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(self.seconds, 1),
            "images_per_second": round(self.images / self.seconds, 1) if self.seconds else 0.0,
            "lr_max": model.hparams["lr_max"],
            "lr_min": model.hparams["lr_min"],
            "parameters": sum(p.numel() for p in model.net.parameters()),
            "seed": datamodule.seed,
            "engine": "batch" if isinstance(datamodule.transforms(augment=True), BatchBackend) else "albumentations",
            "precision": trainer.precision,
            "compiled": model.hparams["compile"] is True,
            "device": device_name(trainer.strategy.root_device),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "lightning": pl.__version__},
        }
        trainer.print(
            f"test accuracy of the last epoch: {counted(metrics['test/acc'], total)}" if tested else "not evaluated"
        )
        trainer.print(
            f"{trainer.current_epoch} epochs in {clock(self.seconds)}, evaluations included "
            f"({result['images_per_second']:.0f} images/s)"
        )
        if trainer.logger is None or not trainer.is_global_zero:
            return
        files.write_atomically(Path(folder) / runs.RESULT, json.dumps(result, indent=1))
        if isinstance(trainer.logger, TensorBoardLogger):
            final = {f"final/{name.replace('/', '_')}": value for name, value in metrics.items()}
            trainer.logger.log_hyperparams(model.hparams, final, step=trainer.global_step)
        trainer.print(f"run: {files.shown(Path(folder))}")

    # --------------------------------------------------------------------------------------------------------- pictures

    @staticmethod
    def _draw(writer: Any, trainer: Any, model: Any) -> None:
        stage = "val" if trainer.datamodule.val_size else "test"
        writer.add_custom_scalars(
            {"curves": {name: ["Multiline", [f"train/{name}", f"{stage}/{name}"]] for name in ("loss", "acc")}}
        )
        writer.add_figure("training images, augmented", augmented_grid(trainer.datamodule))
        network = copy.deepcopy(model.net).cpu().float().eval()
        size = model.preprocessing.image_size
        writer.add_graph(network, torch.zeros(1, 3, size, size))


def augmented_grid(datamodule: CIFAR10DataModule) -> "Figure":
    """The first training images of epoch 1 as the network sees them, with their labels."""
    data, (rows, columns) = datamodule.train_images, GRID
    requests = SeededBatchSampler(len(data), min(rows * columns, len(data)), datamodule.seed, shuffle=True)
    images, labels = InMemoryDataset(data, datamodule.transforms(augment=True))[next(iter(requests))]
    pixels = denormalize(images, datamodule.mean, datamodule.std)
    return image_grid(pixels.numpy(), [data.classes[label] for label in labels], columns, width=1.2 * columns)


def opening_lines(trainer: Any, model: Any, datamodule: CIFAR10DataModule, precision_reason: str) -> str:
    """What is about to be trained, on what, and where."""
    train, test = datamodule.train_images, datamodule.test_images
    parameters = sum(p.numel() for p in model.net.parameters())
    held_out = f", {datamodule.val_size:,} validation" if datamodule.val_size else ""
    return "\n".join(
        [
            f"network: {type(model.net).__name__}, {parameters:,} parameters",
            f"data: {datamodule.source}, {len(train):,} training{held_out} and {len(test):,} test images, "
            f"{len(train.classes)} classes",
            f"training images: {datamodule.transforms(augment=True)}",
            f"test images: {datamodule.transforms(augment=False)}",
            f"device: {device_name(trainer.strategy.root_device)}; precision {trainer.precision} ({precision_reason})",
        ]
    )


def epoch_line(row: dict[str, float], trainer: Any) -> str:
    """One epoch in words: LR of its last step, loss and accuracy in training and evaluation."""
    width = len(str(trainer.max_epochs))
    line = f"epoch {row['epoch']:>{width}}/{trainer.max_epochs}  lr {row['lr']:.2e}"
    line += f"  train loss {row['train/loss']:.4f} acc {row['train/acc']:.2%}"
    for stage in ("val", "test"):
        if f"{stage}/acc" in row:
            data = trainer.datamodule
            images = data.val_size if stage == "val" else len(data.test_images)
            total = images_seen(images, data.batch_size, trainer.limit_val_batches, trainer.world_size)
            line += f"  {stage} loss {row[f'{stage}/loss']:.4f} acc {counted(row[f'{stage}/acc'], total)}"
    return line


def images_seen(images: int, batch_size: int, limit: int | float | None, processes: int) -> int:
    """How many of ``images`` an evaluation counts under --trainer.limit_*_batches (1.0 is all of them)."""
    return min(images, batches(images, batch_size, limit, processes) * batch_size * processes)


def batches(images: int, batch_size: int, limit: int | float | None, processes: int) -> int:
    """How many batches each process makes of ``images`` under --trainer.limit_*_batches."""
    whole = math.ceil(math.ceil(images / processes) / batch_size)
    if limit is None:
        return whole
    return min(whole, limit) if isinstance(limit, int) else int(whole * limit)


def counted(accuracy: float, total: int) -> str:
    """``9264/10000 (92.64%)``."""
    return f"{round(accuracy * total)}/{total} ({accuracy:.2%})"


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's model and cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores" + (", Apple GPU" if device.type == "mps" else "")
