"""Lightning's Trainer with this project's defaults, which keeps each run in one folder."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs import folders as runs
from customresnet.runs import weights
from customresnet.runtime import files
from customresnet.runtime.errors import UserError
from customresnet.runtime.memory import keep_freed_memory
from customresnet.runtime.precision import device_kind, resolve_precision
from customresnet.training.callbacks.progress import RunProgress
from customresnet.training.callbacks.run_log import RunLog, batches

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RunTrainer(pl.Trainer):
    """Lightning's Trainer with this project's defaults.

    Args:
        run_name: Runs are kept in lightning_logs/<run_name>/version_N.
        accelerator: Where to compute: auto, cpu, gpu, mps.
        devices: How many of them, or which; auto takes all, and each then works on batches of its own.
        precision: auto takes bf16 or fp16 where the hardware is fast at it; or any of Lightning's.
        max_epochs: Epochs to train.
        logger: True for TensorBoard; false keeps nothing of a run but its checkpoints.
        callbacks: Callbacks besides this project's own.
        log_every_n_steps: Steps between two points of the LR and momentum curves.
        num_sanity_val_steps: Evaluation batches to try before training.
        limit_train_batches: Training batches in an epoch: 1 is one, 1.0 is all, 0.5 is half of them.
        limit_val_batches: Batches of the evaluation after each epoch, likewise.
        limit_test_batches: Batches of a test, likewise.
        enable_checkpointing: Keep checkpoints/last.ckpt, written after every epoch.
        enable_progress_bar: Show the bar.
        enable_model_summary: Print Lightning's table of the model's parts.
        default_root_dir: Folder that holds lightning_logs. Default: the current one.
    """

    datamodule: CIFAR10DataModule  # set by Lightning
    callbacks: list[pl.Callback]
    fast_dev_run: int

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
        # again here, since `Union[int, float]` may reach the command line as float first, and 1 batch as 1.0: all
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        enable_checkpointing: bool = True,
        enable_progress_bar: bool = True,
        enable_model_summary: bool = False,
        default_root_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.run_name = run_name
        self.run_log = RunLog()
        self._best: ModelCheckpoint | None = None
        precision, self._precision_reason = resolve_precision(str(precision), accelerator)
        if device_kind(accelerator) == "cuda" and kwargs.get("benchmark") is None and not kwargs.get("deterministic"):
            kwargs["benchmark"] = True  # all batches but two are of one shape: cuDNN is to try its algorithms on it
        if kwargs.get("overfit_batches"):
            raise UserError("--trainer.overfit_batches is not supported; use --trainer.limit_train_batches")
        if logger is None or logger is True:
            logger = self._tensorboard(Path(default_root_dir or "."))
        given = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        own: list[pl.Callback] = [self.run_log]
        if enable_progress_bar:
            own.append(RunProgress())
        if enable_checkpointing:
            own.append(one_checkpoint(Path(runs.LAST).stem))
        super().__init__(
            accelerator=accelerator,
            devices=devices,
            precision=precision,  # type: ignore[arg-type]
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
            use_distributed_sampler=False,  # the data module shards by itself
            **kwargs,
        )
        self.strategy.checkpoint_io = CheckpointFiles()
        if self.strategy.root_device.type == "cpu":
            keep_freed_memory()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print in the first process, above the progress bar if there is one."""
        if self.local_rank == 0:
            bar = self.progress_bar_callback
            (bar.print if bar else print)(*args, **kwargs)

    def _tensorboard(self, root: Path, version: str | None = None) -> TensorBoardLogger:
        # absolute, so that a run resumed from elsewhere still knows its best checkpoint
        return TensorBoardLogger(str(root.resolve() / runs.LOGS), self.run_name, version, default_hp_metric=False)

    def _resolve(self, ckpt_path: str, *, unfinished: bool = False) -> str:
        """The checkpoint that was meant: a file, a run's folder, or last."""
        root = Path(self.default_root_dir)
        return str(runs.find_checkpoint(ckpt_path, root, self.run_name, unfinished=unfinished))

    def _go_on_in(self, folder: Path) -> None:
        """Log into the folder of the run that is resumed, if it is one."""
        if isinstance(self.logger, TensorBoardLogger) and folder.parent.parent.name == runs.LOGS:
            self.run_name = folder.parent.name
            self.logger = self._tensorboard(folder.parents[2], folder.name)

    def _steps_per_epoch(self, images: int, batch_size: int) -> int:
        """Optimizer steps in an epoch, as Lightning will count them."""
        loaded = batches(images, batch_size, self.limit_train_batches, self.world_size)
        if loaded < 1:
            raise UserError(f"--trainer.limit_train_batches {self.limit_train_batches} leaves no training batch")
        return math.ceil(loaded / self.accumulate_grad_batches)

    def _total_steps(self, steps_per_epoch: int) -> float:
        """Optimizer steps in the whole run, from --trainer.max_epochs and max_steps; infinite without either."""
        epochs = math.inf if self.max_epochs in (None, -1) else self.max_epochs or 0
        total = steps_per_epoch * epochs
        return total if self.max_steps == -1 else min(total, self.max_steps)

    def _read_images(self, datamodule: CIFAR10DataModule) -> None:
        datamodule.trainer = self  # it chooses its engine by the device
        datamodule.setup("fit")

    def _refuse_several_devices(self, what: str) -> None:
        if self.world_size > 1:
            raise UserError(
                f"{what} runs on one device; received {self.world_size}: find the learning rates with "
                "--trainer.devices 1, then pass --model.lr_max and --model.lr_min"
            )

    def _make_log_folder(self) -> None:
        if self.logger is not None and not self.fast_dev_run and self.is_global_zero:
            files.make_folder(Path(self.logger.log_dir or "."), "--trainer.default_root_dir")

    def _show_figure(self, name: str, title: str, draw: Callable[[], "Figure"]) -> None:
        """Put a figure into the log folder and into TensorBoard."""
        if isinstance(self.logger, TensorBoardLogger):
            figure, path = draw(), Path(self.logger.log_dir) / name
            figure.savefig(path, dpi=150)
            self.print(f"plot: {files.shown(path)}")
            self.logger.experiment.add_figure(title, figure)
            self.logger.experiment.flush()


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoint files, and weights in the form that ships with the package."""

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if Path(path).suffix == weights.SUFFIX:
            return weights.read(Path(path))
        return super().load_checkpoint(path, *args, **kwargs)


def one_checkpoint(name: str, **kwargs: Any) -> ModelCheckpoint:
    """One file that each save replaces; Lightning writes it atomically."""
    return ModelCheckpoint(filename=name, save_on_train_epoch_end=True, enable_version_counter=False, **kwargs)
