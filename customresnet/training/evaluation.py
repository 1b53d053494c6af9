"""Evaluate and use a checkpoint: validate, test and predict."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from customresnet.commands.prediction_table import prediction_table, predictions
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.sources.image_files import read_pictures
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runs import folders as runs
from customresnet.runtime import files
from customresnet.runtime.errors import UserError
from customresnet.training.callbacks.run_log import counted, images_seen
from customresnet.training.classifier import ImageClassifier
from customresnet.training.run_trainer import RunTrainer


class EvaluationCommands(RunTrainer):
    """The Trainer's commands that use a trained network."""

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
            prep = Preprocessing.from_checkpoint(runs.read_checkpoint(Path(ckpt_path)))
        elif model.preprocessing:
            prep = model.preprocessing
        else:
            raise UserError("predict needs --ckpt_path: last, a checkpoint or a run's folder")
        squares, paths, sizes = read_pictures([Path(i) for i in images], prep.image_size)
        inputs: Any = prep.engine()(squares, seed=0)
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
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(path, json.dumps(content, indent=1))
        except OSError as error:  # the answer is on the screen already
            self.print(f"warning: could not write {path} ({error})")
        else:
            self.print(f"written: {files.shown(path)}")
