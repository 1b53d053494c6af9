"""Lightning's Trainer with this project's defaults: precision, logger, checkpoints, run folder."""

import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, Timer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import Precision
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.plugins.io import CheckpointIO

from customresnet.runs.folders import LAST, check_run_name
from customresnet.runtime.errors import UserError
from customresnet.runtime.memory import keep_freed_memory
from customresnet.runtime.precision import device_kind, resolve_precision
from customresnet.training.callbacks.loss_guard import LossGuard
from customresnet.training.callbacks.progress import RunProgress
from customresnet.training.callbacks.recorder import RunRecorder
from customresnet.training.checkpoints import CheckpointFiles, FirstAndLastSteps, checkpoint_callback
from customresnet.training.logger import tensorboard_logger


class Trainer(pl.Trainer):
    """Lightning's Trainer with this project's defaults.

    Args:
        run_name: Runs are written to lightning_logs/<run_name>/version_N.
        accelerator: Hardware to train on: auto, cpu, gpu or mps.
        devices: Number of devices, or their indices; auto uses all. Each one processes its own batches.
        precision: auto uses bf16 or fp16 where the hardware is fast at it; or one of Lightning's precisions.
        max_epochs: Epochs to train.
        logger: true logs to TensorBoard; false writes only checkpoints.
        callbacks: Callbacks in addition to this project's own.
        log_every_n_steps: Steps between two points of the LR and momentum curves.
        num_sanity_val_steps: Evaluation batches to run before training, as a check.
        limit_train_batches: Training batches per epoch: 1 means one, 1.0 all, 0.5 half of them.
        limit_val_batches: Batches of each evaluation during training, in the same way.
        limit_test_batches: Batches of a test, in the same way.
        enable_checkpointing: Write checkpoints/last.ckpt after every epoch.
        enable_progress_bar: Show the progress bar.
        enable_model_summary: Print Lightning's model summary.
        default_root_dir: Folder that contains lightning_logs. Default: the current one.
    """

    def __init__(
        self,
        run_name: str = "customresnet",
        accelerator: str = "auto",
        devices: int | str | list[int] = 1,
        precision: str = "auto",
        max_epochs: int = 24,
        logger: Logger | Iterable[Logger] | bool | None = None,
        callbacks: list[pl.Callback] | pl.Callback | None = None,
        log_every_n_steps: int = 1,
        num_sanity_val_steps: int = 0,
        # repeated here: jsonargparse may try float first in `Union[int, float]`, and 1 batch would become 1.0, all
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        enable_checkpointing: bool = True,
        enable_progress_bar: bool = True,
        enable_model_summary: bool = False,
        default_root_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_run_name(run_name)
        self.run_name = run_name
        if kwargs.get("barebones"):  # Lightning then refuses all of these
            logger = enable_checkpointing = enable_progress_bar = False
            log_every_n_steps = 0
        # not popped: older versions of jsonargparse would no longer offer these two as flags
        plugins, max_time = kwargs.get("plugins") or [], kwargs.get("max_time")
        plugins = list(plugins) if isinstance(plugins, list) else [plugins]
        resolved: str | None
        resolved, self.precision_reason = resolve_precision(str(precision), accelerator)
        if precision == "auto" and any(isinstance(plugin, Precision) for plugin in plugins):
            resolved, self.precision_reason = None, "a plugin"
        if device_kind(accelerator) == "cuda" and kwargs.get("benchmark") is None and not kwargs.get("deterministic"):
            kwargs["benchmark"] = True  # nearly all batches have the same shape, so cuDNN can tune for it
        if kwargs.get("overfit_batches"):
            raise UserError("`overfit_batches` is not supported; use `limit_train_batches`")
        if logger is None or logger is True:
            logger = tensorboard_logger(Path(default_root_dir or "."), run_name)
        given = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        own: list[pl.Callback] = [LossGuard(), *([FirstAndLastSteps()] if enable_checkpointing else []), RunRecorder()]
        if enable_progress_bar and not any(isinstance(callback, ProgressBar) for callback in given):
            own.append(RunProgress())
        if enable_checkpointing:
            own.append(checkpoint_callback(Path(LAST).stem))
        if max_time:
            own.append(Timer(max_time, interval="epoch"))  # after whole epochs, so that the run can be resumed
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(CheckpointFiles())
        kwargs["plugins"], kwargs["max_time"] = plugins, None
        super().__init__(
            accelerator=accelerator,
            devices=devices,
            precision=resolved,  # type: ignore[arg-type]
            max_epochs=max_epochs,
            logger=logger,
            callbacks=[*given, *own],
            log_every_n_steps=log_every_n_steps,
            num_sanity_val_steps=num_sanity_val_steps,
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            enable_checkpointing=enable_checkpointing,
            enable_progress_bar=enable_progress_bar,
            enable_model_summary=enable_model_summary,
            default_root_dir=default_root_dir,
            use_distributed_sampler=False,  # the data module shards the images
            **kwargs,
        )
        if self.strategy.root_device.type == "cpu":
            keep_freed_memory()


@contextmanager
def probe_trainer(**options: Any) -> Iterator[pl.Trainer]:
    """A Trainer for measurements: no evaluations, logs, output or files.

    ``options`` are its length and ``shared_options``.
    """
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning|torchmetrics")
        yield pl.Trainer(
            limit_val_batches=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=scratch,
            plugins=[LightningEnvironment()],  # not torchrun's, whose processes are as many as the run's
            **{"accelerator": "cpu", "devices": 1, **options},
        )


def shared_options(trainer: pl.Trainer) -> dict[str, Any]:
    """The options that a probe shares with the run's Trainer: the device, and those that affect a step."""
    device = trainer.strategy.root_device
    return {
        "accelerator": device.type,
        "devices": 1 if device.index is None else [device.index],
        "precision": trainer.precision,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "gradient_clip_algorithm": trainer.gradient_clip_algorithm,
    }
