"""The result of a finished run."""

import platform

import pytorch_lightning as pl
import torch

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.transforms.batch_backend import BatchBackend
from customresnet.runs.files import Result
from customresnet.runtime.hardware import device_name
from customresnet.training.callbacks.recorder import RunRecorder
from customresnet.training.classifier import ImageClassifier
from customresnet.training.plan import ending
from customresnet.training.steps import count_evaluated


def run_result(
    trainer: pl.Trainer,
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    recorder: RunRecorder,
    planned_steps: int,
) -> Result:
    """The content of result.json: the last metrics, how the run ended, learning rates, hardware and versions."""
    device = trainer.strategy.root_device
    by_batch = isinstance(datamodule.transforms(augment=True, device=device), BatchBackend)
    result: Result = {name: value for name, value in recorder.rows[-1].items() if "/" in name}  # type: ignore[assignment]
    if "test/acc" in result:
        limit = trainer.limit_test_batches if datamodule.val_size else trainer.limit_val_batches
        images = count_evaluated(len(datamodule.test_images), datamodule.batch_size, limit, trainer.world_size)
        result |= {"test/correct": round(result["test/acc"] * images), "test/images": images}
    seconds = recorder.seconds
    result |= {
        "ended": ending(trainer, recorder.rows[-1], planned_steps),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "planned_steps": planned_steps,
        "seconds": round(seconds, 1),
        "images_per_second": round(recorder.images / seconds, 1) if seconds else 0.0,
        "lr_max": model.hparams["lr_max"],
        "lr_min": model.hparams["lr_min"],
        "parameters": sum(p.numel() for p in model.net.parameters()),
        "seed": datamodule.seed,
        "engine": "batch" if by_batch else "albumentations",
        "precision": str(trainer.precision),
        "compiled": model.hparams["compile"] is True,
        "device": device_name(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "lightning": pl.__version__},
    }
    return result
