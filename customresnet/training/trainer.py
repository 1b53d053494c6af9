"""Lightning's Trainer with this project's defaults: LR range test before fit, one folder a run, plain results."""

import json
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch.utils.data import DataLoader

from customresnet.data.augment import NO_AUGMENTATION, AlbumentationsEngine
from customresnet.data.datamodule import CIFAR10DataModule, Preprocessing
from customresnet.data.sources import read_pictures
from customresnet.errors import UserError
from customresnet.training import runs
from customresnet.training.classifier import FAST_DEV_RUN_LR, ImageClassifier
from customresnet.training.lr_range import LRRangeResult, LRRangeTest, run_lr_range_test
from customresnet.training.precision import resolve_precision
from customresnet.training.predictions import prediction_table, predictions
from customresnet.training.progress import RunProgress
from customresnet.training.run_log import RunLog, counted, images_seen, opening_lines


class Trainer(pl.Trainer):
    """Lightning's Trainer with this project's defaults and its LR range test.

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
        if kwargs.get("overfit_batches"):
            raise UserError("--trainer.overfit_batches is not supported; use --trainer.limit_train_batches")
        if logger is None or logger is True:
            logger = self._tensorboard(Path(default_root_dir or "."))
        given = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        own: list[pl.Callback] = [self.run_log]
        if enable_progress_bar:
            own.append(RunProgress())
        if logger:
            own.append(LearningRateMonitor(logging_interval="step", log_momentum=True))
        if enable_checkpointing:
            own.append(_checkpoint(Path(runs.LAST).stem))
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

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print in the first process, above the progress bar if there is one."""
        if self.local_rank == 0:
            bar = self.progress_bar_callback
            (bar.print if bar else print)(*args, **kwargs)

    def _tensorboard(self, root: Path, version: str | None = None) -> TensorBoardLogger:
        # absolute, so that a run resumed from elsewhere still knows its best checkpoint
        return TensorBoardLogger(str(root.resolve() / runs.LOGS), self.run_name, version, default_hp_metric=False)

    # --------------------------------------------------------------------------------------------------------- training

    def fit(  # type: ignore[override]
        self,
        model: ImageClassifier,
        datamodule: CIFAR10DataModule,
        ckpt_path: str | None = None,
        lr_find: LRRangeTest = LRRangeTest(),
    ) -> None:
        """Find the learning rates, train, and evaluate after every epoch.

        Args:
            model: The classifier to train.
            datamodule: Its data.
            ckpt_path: Go on with a run: last (the newest unfinished one of this name), a checkpoint or a run's folder.
            lr_find: The LR range test that sets the learning rates not given; skipped on resume.
        """
        self.run_log.reset()
        if ckpt_path:
            ckpt_path = self._resolve(ckpt_path, unfinished=True)
            folder = runs.run_folder(Path(ckpt_path))
            if (folder / runs.RESULT).is_file():
                raise UserError(f"--ckpt_path {ckpt_path}: this run is finished; see {folder / runs.RESULT}")
            self._go_on_in(folder)
        datamodule.setup("fit")
        model.check_schedule(self._epochs(datamodule))
        classes = len(datamodule.train_images.classes)
        if classes != model.hparams["num_classes"] and not ckpt_path:  # a checkpoint is compared when it is loaded
            raise UserError(
                f"the data has {classes} classes; received --model.num_classes {model.hparams['num_classes']}"
            )
        self._make_log_folder()
        self.print(opening_lines(self, model, datamodule, self._precision_reason))
        if not ckpt_path and None in (model.hparams["lr_max"], model.hparams["lr_min"]):
            if self.fast_dev_run:
                self.print(f"fast_dev_run: no LR range test, constant LR {FAST_DEV_RUN_LR:g}")
            else:
                self._find_bounds(model, datamodule, lr_find).set_missing_bounds(model)
        if datamodule.val_size and self.checkpoint_callback and self._best is None:
            self._best = _checkpoint("best", monitor="val/acc", mode="max")
            self.callbacks.append(self._best)
        super().fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
        if self.fast_dev_run or not self.run_log.rows:
            return
        self.run_log.stop_clock()
        if datamodule.val_size:
            self.run_log.last |= super().test(model, datamodule=datamodule, verbose=False)[0]  # the one look at it
        elif "test/acc" not in self.run_log.last and self.limit_val_batches != 0:
            self.run_log.last |= super().validate(model, datamodule=datamodule, verbose=False)[0]
        self.run_log.finish(self, model)

    def _epochs(self, datamodule: CIFAR10DataModule) -> float:
        """Length of the run in epochs, from --trainer.max_epochs and max_steps."""
        epochs = math.inf if self.max_epochs in (None, -1) else float(self.max_epochs)
        if self.max_steps == -1:
            return epochs
        return min(epochs, self.max_steps * self.accumulate_grad_batches / len(datamodule.train_dataloader()))

    def _resolve(self, ckpt_path: str, *, unfinished: bool = False) -> str:
        """The checkpoint that was meant: a file, a run's folder, or last."""
        root = Path(self.default_root_dir)
        return str(runs.find_checkpoint(ckpt_path, root, self.run_name, unfinished=unfinished))

    def find_learning_rates(
        self, model: ImageClassifier, datamodule: CIFAR10DataModule, lr_find: LRRangeTest = LRRangeTest()
    ) -> LRRangeResult:
        """Run the LR range test alone and show the learning rates it suggests.

        Args:
            model: The classifier to probe; it is left as it was.
            datamodule: Its data.
            lr_find: How the test runs.
        """
        self._make_log_folder()
        datamodule.setup("fit")
        self.print(opening_lines(self, model, datamodule, self._precision_reason))
        result = self._find_bounds(model, datamodule, lr_find)
        self.print(f"to train with them: --model.lr_max {result.lr_max:.3g} --model.lr_min {result.lr_min:.3g}")
        return result

    def _find_bounds(self, model: ImageClassifier, datamodule: CIFAR10DataModule, test: LRRangeTest) -> LRRangeResult:
        if self.world_size > 1:
            raise UserError(
                "the LR range test runs on one device: find the bounds with `lr-find --trainer.devices 1`, then pass "
                "--model.lr_max and --model.lr_min"
            )
        self.print(f"LR range test: {test.steps} steps, LR {test.min:g} to {test.max:g}")
        device = self.strategy.root_device
        result = run_lr_range_test(
            model,
            datamodule,
            test,
            accelerator=device.type,
            devices=1 if device.index is None else [device.index],
            precision=self.precision,
            accumulate_grad_batches=self.accumulate_grad_batches,
            gradient_clip_val=self.gradient_clip_val,
            gradient_clip_algorithm=self.gradient_clip_algorithm,
        )
        found = ", ".join(f"{name} {lr:.2e}" for name, lr in result.candidates.items())
        self.print(f"LRMAX {result.lr_max:.2e} ({test.choose}), LRMIN {result.lr_min:.2e}; candidates: {found}")
        if isinstance(self.logger, TensorBoardLogger):
            folder = Path(self.logger.log_dir)
            result.save(folder)
            self.print(f"plot: {runs.shown(folder / 'lr_find.png')}")
            self.logger.experiment.add_figure("LR range test", result.figure())
            self.logger.experiment.flush()
        return result

    def _go_on_in(self, folder: Path) -> None:
        """Log into the folder of the run that is resumed, if it is one."""
        if isinstance(self.logger, TensorBoardLogger) and folder.parent.parent.name == runs.LOGS:
            self.run_name = folder.parent.name
            self.logger = self._tensorboard(folder.parents[2], folder.name)

    def _make_log_folder(self) -> None:
        if self.logger is None or self.fast_dev_run or not self.is_global_zero:
            return
        try:
            Path(self.logger.log_dir or ".").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to --trainer.default_root_dir {self.default_root_dir} ({error})") from error

    # ------------------------------------------------------------------------------------------------------- evaluation

    def validate(  # type: ignore[override]
        self, model: ImageClassifier, datamodule: CIFAR10DataModule, ckpt_path: str | None = None
    ) -> dict[str, Any]:
        """Evaluate a checkpoint on the images that its training held out (on the test images if it held out none).

        Args:
            model: The classifier.
            datamodule: Its data.
            ckpt_path: last (the newest run of this name), a checkpoint or a run's folder.
        """
        figures, ckpt_path = self._without_logger(super().validate, model, datamodule, ckpt_path)
        held_out = datamodule.val_size or len(datamodule.test_images)
        return self._show_evaluation("validate", figures, held_out, self.limit_val_batches, ckpt_path)

    def test(  # type: ignore[override]
        self, model: ImageClassifier, datamodule: CIFAR10DataModule, ckpt_path: str | None = None
    ) -> dict[str, Any]:
        """Evaluate a checkpoint on all test images.

        Args:
            model: The classifier.
            datamodule: Its data.
            ckpt_path: last (the newest run of this name), a checkpoint or a run's folder.
        """
        figures, ckpt_path = self._without_logger(super().test, model, datamodule, ckpt_path)
        images = len(datamodule.test_images)
        return self._show_evaluation("test", figures, images, self.limit_test_batches, ckpt_path)

    def _without_logger(
        self, evaluate: Any, model: ImageClassifier, datamodule: CIFAR10DataModule, ckpt_path: str | None
    ) -> tuple[dict[str, float], str | None]:
        """Evaluate a checkpoint, found by what the user gave, without opening a new run folder for it."""
        ckpt_path = self._resolve(ckpt_path) if ckpt_path else None
        with self._no_new_folder():
            return dict(evaluate(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False)[0]), ckpt_path

    @contextmanager
    def _no_new_folder(self) -> Iterator[None]:
        """Evaluate a run in its own folder, where its checkpoints' callbacks are nobody's concern."""
        loggers, self.loggers = self.loggers, []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The dirpath has changed")
            try:
                yield
            finally:
                self.loggers = loggers

    def _show_evaluation(
        self, command: str, figures: dict[str, float], images: int, limit: int | float | None, ckpt_path: str | None
    ) -> dict[str, Any]:
        total = images_seen(images, self.datamodule.batch_size, limit, self.world_size)
        stage = "val" if "val/acc" in figures else "test"
        self.print(f"{stage} accuracy {counted(figures[f'{stage}/acc'], total)}, loss {figures[f'{stage}/loss']:.4f}")
        counts = {f"{stage}/correct": round(figures[f"{stage}/acc"] * total), f"{stage}/images": total}
        result = {**figures, **counts, "source": self.datamodule.source, "checkpoint": ckpt_path}
        self._write_beside(ckpt_path, f"{command}.json", result)
        return result

    def predict(  # type: ignore[override]
        self,
        model: ImageClassifier,
        datamodule: CIFAR10DataModule | None = None,
        images: list[str] | None = None,
        top_k: int = 3,
        ckpt_path: str | None = None,
    ) -> list[dict[str, Any]]:
        """Name the class of image files.

        Args:
            model: The classifier.
            datamodule: Not used: the images are files, and the checkpoint knows how to prepare them.
            images: Image files, or directories of them.
            top_k: How many classes to show for each image.
            ckpt_path: last (the newest run of this name), a checkpoint or a run's folder.
        """
        if not images:
            raise UserError("predict needs --images: image files, or directories of them")
        if top_k < 1:
            raise UserError(f"--top_k must be at least 1; received {top_k}")
        ckpt_path = self._resolve(ckpt_path) if ckpt_path else None
        if ckpt_path:
            prep = Preprocessing.of_checkpoint(runs.read_checkpoint(Path(ckpt_path)))
        elif model.preprocessing:
            prep = model.preprocessing
        else:
            raise UserError("predict needs --ckpt_path: last, a checkpoint or a run's folder")
        squares, paths, sizes = read_pictures([Path(i) for i in images], prep.image_size)
        inputs: Any = AlbumentationsEngine(NO_AUGMENTATION, prep.mean, prep.std, prep.image_size)(squares, seed=0)
        with self._no_new_folder():
            batches: Any = super().predict(model, dataloaders=DataLoader(inputs, batch_size=256), ckpt_path=ckpt_path)
        rows = predictions(paths, sizes, torch.cat(batches), prep, top_k)
        self.print(prediction_table(rows, prep.image_size))
        self._write_beside(ckpt_path, "predictions.json", rows)
        return rows

    def _write_beside(self, ckpt_path: str | None, name: str, content: Any) -> None:
        """Write a result as JSON into the folder of the checkpoint's run."""
        if not ckpt_path or not self.is_global_zero:
            return
        path = runs.run_folder(Path(ckpt_path)) / name
        try:
            runs.write_atomically(path, json.dumps(content, indent=1))
        except OSError as error:  # the answer is on the screen already
            self.print(f"warning: could not write {path} ({error})")
        else:
            self.print(f"written: {runs.shown(path)}")


def _checkpoint(name: str, **kwargs: Any) -> ModelCheckpoint:
    """One file that each save replaces; Lightning writes it atomically."""
    return ModelCheckpoint(filename=name, save_on_train_epoch_end=True, enable_version_counter=False, **kwargs)


setattr(Trainer, "lr-find", Trainer.find_learning_rates)  # LightningCLI looks a subcommand's method up by its name
