"""What a run recorded, whether it is finished or not, complete or damaged."""

import csv
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from customresnet.models import build_network, default_width, network_name
from customresnet.runs.checkpoint import read_checkpoint
from customresnet.runs.files import READERS, EpochMetrics, RecordName, read_record
from customresnet.runs.folders import CHECKPOINTS, CONFIG, METRICS, is_finished, last_checkpoint, run_folder
from customresnet.runs.kinds import MAX_COUNT
from customresnet.runs.validation import check_network_code, usable
from customresnet.runtime.errors import UserError
from customresnet.runtime.intervals import wilson

DAMAGED = (OSError, ValueError, TypeError, AttributeError, OverflowError, csv.Error, yaml.YAMLError)
"""The exceptions that reading a damaged file raises."""


@dataclass(frozen=True)
class Evaluation:
    """The last accuracy that a run recorded, and the number of images. Unknown values are None.

    ``stage`` is ``test``, or ``val`` for a run with held-out images that has not evaluated the test set yet.
    """

    stage: str
    accuracy: float | None
    correct: int | None = None
    images: int | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95% interval; None if the number of images is unknown."""
        return None if self.correct is None or not self.images else wilson(self.correct, self.images)


@dataclass
class RunRecord:
    """What is known about a run without running its network.

    Attributes:
        name: A short name, unique among the runs read together.
        path: The run's folder, or a checkpoint on its own.
        config, result, lr_find: Its config.yaml, result.json and lr_find.json; {} if missing.
        metrics: The rows of its epochs.csv, without missing and non-finite values.
        remarks: What is missing, damaged or special.
    """

    name: str
    path: Path
    config: dict[str, Any]
    result: dict[str, Any]
    metrics: list[EpochMetrics]
    lr_find: dict[str, Any]
    remarks: list[str]

    @classmethod
    def from_folder(cls, folder: Path, name: str) -> "RunRecord":
        """Read a run's folder. What is missing or damaged becomes a remark."""
        run = cls._read(folder, name, lambda record: read_record(record, folder))
        finished, ended = is_finished(folder), _word(run.result, "ended") or "completed"
        planned = f" of {run.planned}" if run.planned else ""
        if not finished:
            run.remarks.insert(0, f"unfinished: {run.epochs}{planned} epochs")
        elif ended != "completed":
            run.remarks.insert(0, f"{ended.replace('_', ' ')} after {run.epochs}{planned} epochs")
        if part := _number(run.config, "data", "train_size"):
            run.remarks.append(f"trained on {part:,.0f} images")
        for file, expected in ((CONFIG, True), (METRICS, finished)):
            if expected and not (folder / file).is_file() and not (file == METRICS and run.metrics):
                run.remarks.append(f"no {file}")
        if run.metrics and not any(run.series(column)[0] for column in ("train/loss", f"{run.watched}/acc")):
            columns = dict.fromkeys(column for row in run.metrics for column in row)
            run.remarks.append(f"{METRICS} has other columns: {', '.join(columns)}")
        return run

    @classmethod
    def from_checkpoint(cls, path: Path, name: str) -> "RunRecord":
        """What a checkpoint alone tells, without its run's results; a weights file contains those too."""
        checkpoint = read_checkpoint(path)
        run = cls.beside(path, checkpoint, name)
        if path.parent.name == CHECKPOINTS:  # not the last one, but of the same recipe
            run.result, run.metrics = {}, []
        run.config = run.config or {"model": checkpoint["hyper_parameters"]}
        run.result = run.result or {"epochs": checkpoint.get("epoch", -1) + 1}
        run.remarks.insert(0, "a checkpoint on its own")
        return run

    @classmethod
    def beside(cls, path: Path, checkpoint: dict[str, Any], name: str = "") -> "RunRecord":
        """What the run of a checkpoint recorded: in its folder, or in the checkpoint itself if it is a weights file."""
        in_place = path.parent.name == CHECKPOINTS

        def read(record: RecordName) -> Any:
            found = read_record(record, run_folder(path)) if in_place else None
            return checkpoint.get(record) if found is None else found

        return cls._read(path, name, read)

    @classmethod
    def _read(cls, path: Path, name: str, read: Callable[[RecordName], Any]) -> "RunRecord":
        found: dict[str, Any] = {}
        remarks = []
        for record, (file, _) in READERS.items():
            try:
                found[record] = _rows(read(record)) if record == "metrics" else usable(record, _mapping(read(record)))
            except DAMAGED:
                found[record] = [] if record == "metrics" else {}
                remarks.append(f"{file} cannot be read")
        return cls(name, path, **found, remarks=remarks)

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint: a folder's last one; None if there is none."""
        path = last_checkpoint(self.path) if self.path.is_dir() else self.path
        return path if path.is_file() else None

    @property
    def recipe(self) -> str | None:
        """The run's name: its preset's, or the one given as `run_name`."""
        return _word(self.config, "trainer", "run_name")

    @property
    def data(self) -> tuple[str, Path | None]:
        """The source and root of its data, from config.yaml or else the checkpoint; an empty source if unknown."""
        source, root = (_word(self.config, "data", name) for name in ("source", "root"))
        if source is None and self.checkpoint:
            with suppress(UserError):
                source = read_checkpoint(self.checkpoint)["preprocessing"]["source"]
        return source or "", Path(root) if root else None

    @property
    def network(self) -> str | None:
        """The network's name, with its width unless it is the default."""
        network, width = _entry(self.config, "model", "network"), _number(self.config, "model", "width")
        try:
            name = network_name(network)
            default = default_width(network)
        except (UserError, TypeError, AttributeError):
            return None
        return name if width is None or width == default else f"{name}, width {width:g}"

    @property
    def parameters(self) -> int | None:
        """The number of parameters; counted here if the run did not record it."""
        recorded = _number(self.result, "parameters")
        model: Any = self.config.get("model")
        if recorded is not None:
            return int(recorded)
        try:
            check_network_code(model)
            with torch.device("meta"):  # shapes only
                network = build_network(*(model[name] for name in ("network", "num_classes", "width")))
        except (UserError, LookupError, TypeError, ValueError, AttributeError, RuntimeError):
            return None
        return sum(parameter.numel() for parameter in network.parameters())

    def bound(self, name: str) -> tuple[float | None, str]:
        """A bound, ``lr_max`` or ``lr_min``, and whether the LR range test ``found`` it or it was ``given``."""
        used = _number(self.config, "model", name) or _number(self.result, name)
        if used is None:
            return None, ""
        return used, "found" if used == _number(self.lr_find, name) else "given"

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return int(_number(self.result, "epochs") or max(self.series("epoch")[1], default=0))

    @property
    def planned(self) -> int | None:
        """Epochs planned; None if unknown."""
        epochs = _number(self.config, "trainer", "max_epochs")
        return int(epochs) if epochs and epochs > 0 else None

    @property
    def seconds(self) -> float | None:
        """Seconds of training and its evaluations; None if the run did not finish."""
        return _number(self.result, "seconds")

    @property
    def best_training(self) -> float | None:
        """The highest training accuracy of an epoch."""
        return max(self.series("train/acc")[1], default=_number(self.result, "train/acc"))

    @property
    def watched(self) -> str:
        """The stage evaluated after each epoch: ``val`` or ``test``."""
        return "val" if self.series("val/acc")[0] else "test"

    @property
    def evaluation(self) -> Evaluation:
        """The last accuracy."""
        final, correct, images = (_number(self.result, f"test/{name}") for name in ("acc", "correct", "images"))
        if final is not None and correct is not None and images and 0 <= correct <= images:
            return Evaluation("test", final, int(correct), int(images))
        values = self.series(f"{self.watched}/acc")[1]
        if final is not None or not values:
            return Evaluation("test", final)
        return Evaluation(self.watched, values[-1])

    def series(self, column: str) -> tuple[list[float], list[float]]:
        """The epochs with a value in a column of epochs.csv, and these values."""
        rows = [row for row in self.metrics if {"epoch", column} <= row.keys()]
        return [row["epoch"] for row in rows], [row[column] for row in rows]


# a damaged file may contain anything


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value or {}, dict):
        raise ValueError("not a mapping")
    return value or {}


def _rows(rows: Any) -> list[EpochMetrics]:
    numbers = [{name: float(value) for name, value in row.items() if value not in ("", None)} for row in rows or []]
    return [{name: value for name, value in row.items() if abs(value) <= MAX_COUNT} for row in numbers]


def _entry(record: Any, *keys: str) -> Any:
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def _word(record: Any, *keys: str) -> str | None:
    value = _entry(record, *keys)
    return value if isinstance(value, str) else None


def _number(record: Any, *keys: str) -> float | None:
    value = _entry(record, *keys)
    return value if isinstance(value, int | float) and math.isfinite(value) else None
