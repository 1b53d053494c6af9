"""A run as its files tell it: finished or not, whole or damaged."""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from customresnet.models import NETWORKS, build_network, default_width
from customresnet.runs import folders as runs
from customresnet.runs.records import RECORDS, as_numbers, read_record
from customresnet.runtime.errors import UserError
from customresnet.runtime.intervals import wilson

DAMAGED = (OSError, ValueError, TypeError, csv.Error, yaml.YAMLError)
"""What reading a damaged file raises."""


@dataclass(frozen=True)
class Evaluation:
    """An accuracy as a run wrote it down.

    Attributes:
        stage: ``test``; ``val`` if the run holds images out and has not come to the test images.
        accuracy: Of the last evaluation; None if there was none.
        correct: How many images were right; None if that is not written down.
        images: Of how many, likewise.
    """

    stage: str
    accuracy: float | None
    correct: int | None = None
    images: int | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval; None if the images are not known."""
        return None if self.correct is None or not self.images else wilson(self.correct, self.images)


@dataclass
class RecordedRun:
    """What is known of a run without running its network.

    Attributes:
        name: Short, and no other run's in the comparison.
        path: Its folder; or a checkpoint, of which less is known.
        config: Its config.yaml; {} if there is none.
        result: Its result.json; {} if there is none.
        metrics: The lines of its metrics.csv, each without what is missing or not finite.
        lr_find: Its lr_find.json; {} if there is none.
        remarks: What is missing, damaged or otherwise to be known.
    """

    name: str
    path: Path
    config: dict[str, Any]
    result: dict[str, Any]
    metrics: list[dict[str, float]]
    lr_find: dict[str, Any]
    remarks: list[str]

    @classmethod
    def from_folder(cls, folder: Path, name: str) -> "RecordedRun":
        """Read a run's folder; what is missing or damaged becomes a remark."""
        run = cls._read(folder, name, lambda record: read_record(record, folder))
        finished = (folder / runs.RESULT).is_file()
        if not finished:
            planned = f" of {run.planned}" if run.planned else ""
            run.remarks.insert(0, f"unfinished: {run.epochs}{planned} epochs")
        if part := _number(run.config, "data", "train_size"):
            run.remarks.append(f"trained on {part:,.0f} images")
        for file, expected in (("config.yaml", True), ("metrics.csv", finished)):
            if expected and not (folder / file).is_file():
                run.remarks.append(f"no {file}")
        if run.metrics and not any(run.series(column)[0] for column in ("train/loss", f"{run.watched}/acc")):
            columns = dict.fromkeys(column for row in run.metrics for column in row)
            run.remarks.append(f"metrics.csv has other columns: {', '.join(columns)}")
        return run

    @classmethod
    def from_checkpoint(cls, path: Path, name: str) -> "RecordedRun":
        """What a checkpoint by itself tells; weights written to be shipped hold what their run wrote down."""
        checkpoint = read_checkpoint(path)
        folder = runs.run_folder(path)
        in_run = path.parent.name == runs.CHECKPOINTS  # not its last one, but of the same recipe

        def read(record: str) -> Any:
            recipe = in_run and record in ("config", "lr_find")
            return read_record(record, folder) if recipe else checkpoint.get(record)

        run = cls._read(path, name, read)
        run.config = run.config or {"model": checkpoint["hyper_parameters"]}
        run.result = run.result or {"epochs": checkpoint.get("epoch", -1) + 1}
        run.remarks.insert(0, "a checkpoint by itself")
        return run

    @classmethod
    def _read(cls, path: Path, name: str, read: Callable[[str], Any]) -> "RecordedRun":
        found: dict[str, Any] = {}
        remarks = []
        for record, (file, _) in RECORDS.items():
            try:
                found[record] = _metrics(read(record)) if record == "metrics" else _mapping(read(record))
            except DAMAGED:
                found[record] = [] if record == "metrics" else {}
                remarks.append(f"{file} cannot be read")
        return cls(name, path, **found, remarks=remarks)

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint, a folder's last one; None if there is none."""
        path = self.path / runs.CHECKPOINTS / runs.LAST if self.path.is_dir() else self.path
        return path if path.is_file() else None

    # ------------------------------------------------------------------------------------------------------ its recipe

    @property
    def recipe(self) -> str | None:
        """The name that it was started under."""
        return _word(self.config, "trainer", "run_name")

    @property
    def network(self) -> str | None:
        """Which network, with its width if that is not the network's own."""
        name, width = _word(self.config, "model", "network"), _number(self.config, "model", "width")
        if name is None or width is None or width == _own_width(name):
            return name
        return f"{name}, width {width:g}"

    @property
    def parameters(self) -> int | None:
        """Of its network; counted here if the run did not come to it."""
        recorded: Any = _number(self.result, "parameters")
        model: Any = self.config.get("model")
        if recorded is not None:
            return int(recorded)
        try:
            with torch.device("meta"):  # shapes only
                network = build_network(*(model[name] for name in ("network", "num_classes", "width")))
        except (UserError, LookupError, TypeError, ValueError):
            return None
        return sum(parameter.numel() for parameter in network.parameters())

    def bound(self, name: str) -> tuple[float | None, str]:
        """A learning rate, ``lr_max`` or ``lr_min``, and whether the LR range test found it or it was given."""
        used = _number(self.config, "model", name) or _number(self.result, name)
        if used is None:
            return None, ""
        return used, "found" if used == _number(self.lr_find, name) else "given"

    # -------------------------------------------------------------------------------------------------- what came of it

    @property
    def epochs(self) -> int:
        """How many it trained."""
        return int(_number(self.result, "epochs") or max(self.series("epoch")[1], default=0))

    @property
    def planned(self) -> int | None:
        """How many epochs it was to train; None if that is not known."""
        epochs = _number(self.config, "trainer", "max_epochs")
        return int(epochs) if epochs and epochs > 0 else None

    @property
    def seconds(self) -> float | None:
        """Seconds of training and its evaluations; None if it did not finish."""
        return _number(self.result, "seconds")

    @property
    def best_training(self) -> float | None:
        """The highest training accuracy of an epoch."""
        return max(self.series("train/acc")[1], default=_number(self.result, "train/acc"))

    @property
    def watched(self) -> str:
        """What it was evaluated on after the epochs: ``val`` or ``test``."""
        return "val" if self.series("val/acc")[0] else "test"

    @property
    def evaluation(self) -> Evaluation:
        """Its last accuracy."""
        final, correct, images = (_number(self.result, f"test/{name}") for name in ("acc", "correct", "images"))
        if final is not None and correct is not None and images and 0 <= correct <= images:
            return Evaluation("test", final, int(correct), int(images))
        values = self.series(f"{self.watched}/acc")[1]
        if final is not None or not values:
            return Evaluation("test", final)
        return Evaluation(self.watched, values[-1])

    def series(self, column: str) -> tuple[list[float], list[float]]:
        """The epochs that have a figure in a column of metrics.csv, and the figures."""
        rows = [row for row in self.metrics if {"epoch", column} <= row.keys()]
        return [row["epoch"] for row in rows], [row[column] for row in rows]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """``runs.read_checkpoint`` for a file that no flag named."""
    try:
        return runs.read_checkpoint(path)
    except UserError as error:
        raise UserError(str(error).removeprefix("--ckpt_path ")) from error


# ------------------------------------------------------------------------------------- a damaged file may hold anything


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value or {}, dict):
        raise ValueError("it holds no names with values")
    return value or {}


def _metrics(lines: Any) -> list[dict[str, float]]:
    rows = as_numbers(lines or [])
    return [{name: value for name, value in row.items() if math.isfinite(value)} for row in rows]


def _own_width(network: str) -> int | None:
    return default_width(network) if network in NETWORKS else None


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
