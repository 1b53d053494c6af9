"""Find runs in folders and give each a short, unique name."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from customresnet.runs.folders import CHECKPOINTS, CONFIG, LAST, LOGS, METRICS, OLD_METRICS, PRETRAINED, RESULT, SHIPPED
from customresnet.runs.record import RunRecord
from customresnet.runtime.errors import UserError

MARKS = (CONFIG, RESULT, METRICS, OLD_METRICS)
"""A run's folder contains at least one of these files."""


def find_runs(given: Iterable[str]) -> list[RunRecord]:
    """Read every run in run folders, checkpoints, folders that contain runs, and ``pretrained``, each once.

    Raises:
        UserError: A path does not exist or contains no run, or a checkpoint on its own is damaged.
    """
    paths: dict[Path, Path] = {}  # as given, by resolved path
    for word in given:
        for path in _run_paths(word):
            paths.setdefault(path.resolve(), path)
    return [
        RunRecord.from_folder(path, name) if path.is_dir() else RunRecord.from_checkpoint(path, name)
        for path, name in zip(paths.values(), short_names(list(paths)), strict=True)
    ]


def _run_paths(word: str) -> list[Path]:
    path = SHIPPED if word == PRETRAINED else Path(word)
    if path.is_file():
        folder = path.parent.parent
        is_last = (path.parent.name, path.name) == (CHECKPOINTS, LAST) and _is_run(folder)
        return [folder if is_last else path]
    if not path.is_dir():
        raise UserError(f"compare {word}: no such run folder, checkpoint, or folder that contains runs")
    found = _runs_under(path)
    if not found:
        raise UserError(f"compare {word}: this folder contains no run")
    return found


def _is_run(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in MARKS)


def _runs_under(top: Path) -> list[Path]:
    """All run folders in a folder, or the folder itself if it is one; version_10 comes after version_9."""
    found, seen = [], set()
    for name, folders, _ in os.walk(top, followlinks=True):
        folder = Path(name)
        if _is_run(folder):
            found.append(folder)
        if _is_run(folder) or folder.resolve() in seen:  # runs are not nested; links may form a loop
            folders.clear()
        seen.add(folder.resolve())
        folders.sort(key=lambda name: re.sub(r"\d+", lambda digits: digits[0].zfill(9), name))
    return found


def short_names(paths: list[Path]) -> list[str]:
    """The shortest unique end of each absolute path: ``demo/version_0``."""
    lengths = [_least_parts(path) for path in paths]
    while True:
        names = ["/".join(path.parts[-length:]) for path, length in zip(paths, lengths, strict=True)]
        times = Counter(names)
        if len(times) == len(names):
            return names
        lengths = [length + (times[name] > 1) for name, length in zip(names, lengths, strict=True)]


def _least_parts(path: Path) -> int:
    """Parts of a path that identify a run: those below lightning_logs, else a file's name or two folder names."""
    above = path.parts[:-1]
    if LOGS in above:
        return above[::-1].index(LOGS) + 1
    return 1 if path.is_file() else 2
