"""Find the runs that are to be compared, and tell them apart by name."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from customresnet.runs import folders as runs
from customresnet.runs.recorded_run import RecordedRun
from customresnet.runs.records import RECORDS
from customresnet.runtime.errors import UserError

MARKS = [RECORDS[record][0] for record in ("config", "result", "metrics")]
"""The folder of a run has at least one of these."""


def find_runs(given: Iterable[str]) -> list[RecordedRun]:
    """Read all runs that the user means, each once.

    Args:
        given: Folders of runs, checkpoints, folders with runs beneath them, and pretrained.

    Raises:
        UserError: There is nothing of that name, or no run in it, or a checkpoint by itself is damaged.
    """
    paths: dict[Path, Path] = {}  # as the user would write it, by what it really is
    for word in given:
        for path in _meant_by(word):
            paths.setdefault(path.resolve(), path)
    return [
        RecordedRun.from_folder(path, name) if path.is_dir() else RecordedRun.from_checkpoint(path, name)
        for path, name in zip(paths.values(), short_names(list(paths)), strict=True)
    ]


def _meant_by(word: str) -> list[Path]:
    path = runs.SHIPPED if word == runs.PRETRAINED else Path(word)
    if path.is_file():
        folder = path.parent.parent
        is_last = (path.parent.name, path.name) == (runs.CHECKPOINTS, runs.LAST) and _is_run(folder)
        return [folder if is_last else path]
    if not path.is_dir():
        raise UserError(f"compare {word}: no such run's folder, checkpoint or folder with runs beneath it")
    found = _beneath(path)
    if not found:
        raise UserError(f"compare {word}: there is no run in this folder")
    return found


def _is_run(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in MARKS)


def _beneath(top: Path) -> list[Path]:
    """The folders of all runs in a folder, or the folder itself if it is a run's; version_10 after version_9."""
    found, seen = [], set()
    for name, folders, _ in os.walk(top, followlinks=True):
        folder = Path(name)
        if _is_run(folder):
            found.append(folder)
        if _is_run(folder) or folder.resolve() in seen:  # a run holds no runs; links may lead in circles
            folders.clear()
        seen.add(folder.resolve())
        folders.sort(key=lambda name: re.sub(r"\d+", lambda digits: digits[0].zfill(9), name))
    return found


def short_names(paths: list[Path]) -> list[str]:
    """For each absolute path, as much of its end as tells it from the others: ``demo/version_0``."""
    lengths = [_enough(path) for path in paths]
    while True:
        names = ["/".join(path.parts[-length:]) for path, length in zip(paths, lengths, strict=True)]
        times = Counter(names)
        if len(times) == len(names):
            return names
        lengths = [length + (times[name] > 1) for name, length in zip(names, lengths, strict=True)]


def _enough(path: Path) -> int:
    """How many parts of a path say which run it is: those in lightning_logs, else a file's name or two folders'."""
    above = path.parts[:-1]
    if runs.LOGS in above:
        return above[::-1].index(runs.LOGS) + 1
    return 1 if path.is_file() else 2
