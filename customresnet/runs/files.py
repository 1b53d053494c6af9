"""Read and write the files that a run records. ``RunRecord`` reads them all, even if some are damaged."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypedDict

from customresnet.runs.folders import CONFIG, LR_FIND, METRICS, OLD_METRICS, RESULT
from customresnet.runtime.files import as_csv, as_json, read_json, read_text, write_atomically
from customresnet.runtime.recipes import load_yaml

RecordName = Literal["config", "result", "metrics", "lr_find"]
EpochMetrics = dict[str, float]
"""One row of epochs.csv: ``epoch``, ``step``, ``lr``, and ``loss`` and ``acc`` of each stage (``train/loss``)."""

Result = TypedDict(
    "Result",
    {
        "train/loss": float,
        "train/acc": float,
        "val/loss": float,
        "val/acc": float,
        "test/loss": float,
        "test/acc": float,
        "test/correct": int,
        "test/images": int,
        "ended": str,
        "epochs": int,
        "steps": int,
        "planned_steps": int,
        "seconds": float,
        "images_per_second": float,
        "lr_max": float | None,
        "lr_min": float | None,
        "parameters": int,
        "seed": int,
        "engine": str,
        "precision": str,
        "compiled": bool,
        "device": str,
        "versions": dict[str, str],
    },
    total=False,
)
"""The content of result.json. Non-finite metrics are None.

``ended`` says why: completed, early_stopping, diverged (the loss is not finite), max_time, interrupted, or stopped.
After the first three, a run is finished; after the others, it can be resumed. Older results lack ``ended``: completed.
"""


def read_metrics(text: str) -> list[EpochMetrics]:
    """The rows of an epochs.csv, without empty cells."""
    return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(text.splitlines())]


READERS: dict[RecordName, tuple[str, Callable[[str], Any]]] = {
    "config": (CONFIG, load_yaml),
    "result": (RESULT, read_json),
    "metrics": (METRICS, read_metrics),
    "lr_find": (LR_FIND, read_json),
}
"""The file of each record, and how to parse its text."""


def read_record(name: RecordName, folder: Path) -> Any:
    """One record of a run; None if the folder has no such file.

    Raises:
        OSError, ValueError, TypeError, yaml.YAMLError, csv.Error: The file cannot be read.
    """
    file, parse = READERS[name]
    path = folder / file
    if name == "metrics" and not path.is_file():
        path = folder / OLD_METRICS
    return parse(read_text(path)) if path.is_file() else None


def write_result(folder: Path, result: Result) -> None:
    """Write result.json."""
    write_atomically(folder / RESULT, as_json(result))


def write_lr_find(folder: Path, content: dict[str, Any]) -> None:
    """Write lr_find.json."""
    write_atomically(folder / LR_FIND, as_json(content))


def write_metrics(folder: Path, rows: list[EpochMetrics]) -> None:
    """Write epochs.csv."""
    write_atomically(folder / METRICS, as_csv(rows))
