"""What a run writes down of itself in its folder."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from customresnet.runs import folders as runs

RECORDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "config": ("config.yaml", yaml.safe_load),
    "result": (runs.RESULT, json.loads),
    "metrics": ("metrics.csv", lambda text: list(csv.DictReader(text.splitlines()))),
    "lr_find": ("lr_find.json", json.loads),
}
"""The file of each thing that a run writes down, and how to read it."""


def read_record(name: str, folder: Path) -> Any:
    """One of ``RECORDS``; None if the folder has none.

    Raises:
        OSError, ValueError, yaml.YAMLError, csv.Error: It cannot be read.
    """
    file, parse = RECORDS[name]
    path = folder / file
    return parse(path.read_text(encoding="utf-8")) if path.is_file() else None


def as_numbers(metrics: list[dict[str, str]]) -> list[dict[str, float]]:
    """The lines of a metrics.csv, each without the figures that it does not have."""
    return [{name: float(value) for name, value in row.items() if value} for row in metrics]
