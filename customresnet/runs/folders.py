"""Where runs are stored: ``lightning_logs/<name>/version_N/``, with checkpoints and the run's records."""

import re
from pathlib import Path
from typing import Any

from customresnet.runtime.errors import UserError
from customresnet.runtime.files import read_json, read_text

LOGS = "lightning_logs"
CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
WEIGHTS_SUFFIX = ".safetensors"
PRETRAINED = "pretrained"
SHIPPED = Path(__file__).resolve().parents[1] / "pretrained" / "advanced_net.safetensors"
"""The weights included in the package: `ckpt_path` ``pretrained``."""

CONFIG, RESULT, METRICS, LR_FIND = "config.yaml", "result.json", "epochs.csv", "lr_find.json"
"""The files that a run records."""
OLD_METRICS = "metrics.csv"
"""Name of ``METRICS`` in older runs; also that of CSVLogger's file."""

FINISHED = ("completed", "early_stopping", "diverged")
"""Endings after which a run cannot be resumed."""


def check_run_name(name: Any) -> None:
    """Raise a UserError for a name whose runs would lie outside lightning_logs."""
    parts = re.split(r"[/\\]", name) if isinstance(name, str) else []
    if not all(parts) or not {".", ".."}.isdisjoint(parts) or not str(name).isprintable() or len(str(name)) > 200:
        raise UserError(f"`run_name` must be a folder's name inside {LOGS}; received {str(name)[:100]!r}")


def versions(root: Path, name: str) -> list[Path]:
    """The run folders of a name, oldest first."""
    folders = (root / LOGS / name).glob("version_*")
    found = [(int(m[1]), folder) for folder in folders if (m := re.fullmatch(r"version_(\d+)", folder.name))]
    return [path for _, path in sorted(found)]


def last_checkpoint(folder: Path) -> Path:
    """The path of a run's newest checkpoint, which may not exist."""
    return folder / CHECKPOINTS / LAST


def newest_run(root: Path, name: str) -> Path | None:
    """The folder of the newest run of a name with a checkpoint or a result."""
    runs = reversed(versions(root, name))
    return next((run for run in runs if last_checkpoint(run).is_file() or (run / RESULT).is_file()), None)


def is_finished(folder: Path) -> bool:
    """Whether a run has ended for good and cannot be resumed. A damaged result.json counts as finished."""
    if not (folder / RESULT).is_file():
        return False
    try:
        result = read_json(read_text(folder / RESULT))
    except (OSError, ValueError):
        return True
    return not isinstance(result, dict) or result.get("ended", "completed") in FINISHED


def find_checkpoint(ckpt_path: str, root: Path, name: str | None = None, *, unfinished: bool = False) -> Path:
    """The checkpoint that `ckpt_path` names: a file, a run's folder, ``last``, ``best``, ``hpc`` or ``pretrained``.

    ``best`` is the best checkpoint of the newest run with held-out images, ``hpc`` the one that Lightning writes when
    SLURM ends a job.

    Args:
        ckpt_path: The user's value.
        root: Folder that contains lightning_logs.
        name: For ``last`` and ``best``, only runs of this name; None means any.
        unfinished: Find a run to resume: ``last`` is then the newest unfinished run.

    Raises:
        UserError: There is no such checkpoint.
    """
    if ckpt_path in ("last", "best"):
        return _newest_checkpoint(ckpt_path, root, name, unfinished)
    if ckpt_path == "hpc":
        return _hpc_checkpoint(root)
    if unfinished and (ckpt_path == PRETRAINED or ckpt_path.endswith(WEIGHTS_SUFFIX)):
        raise UserError(f"`ckpt_path` {ckpt_path} holds weights only; there is no run to resume")
    path = SHIPPED if ckpt_path == PRETRAINED else Path(ckpt_path)
    if path.is_dir():
        path = last_checkpoint(path)
    if not path.is_file():
        raise UserError(f"`ckpt_path` {ckpt_path}: no such checkpoint")
    return path


def _hpc_checkpoint(root: Path) -> Path:
    numbers = [
        (m[1], path) for path in root.glob("hpc_ckpt_*.ckpt") if (m := re.fullmatch(r"hpc_ckpt_(\d+)", path.stem))
    ]
    if not numbers:
        raise UserError(f"`ckpt_path` hpc: there is no hpc_ckpt_N.ckpt in {root}")
    return max(numbers, key=lambda found: int(found[0]))[1]


def _newest_checkpoint(which: str, root: Path, name: str | None, unfinished: bool) -> Path:
    names = [name] if name else sorted(folder.name for folder in (root / LOGS).glob("*"))
    file = Path(CHECKPOINTS) / f"{which}.ckpt"
    found = [run for each in names for run in versions(root, each) if (run / file).is_file()]
    if unfinished:
        found = [run for run in found if not is_finished(run)]
    if not found:
        what = "unfinished run" if unfinished else f"run with {file}" if which == "best" else "run with a checkpoint"
        where = root / LOGS / name if name else root / LOGS
        other = ", or the run's own `config` or `run_name`" if name else ""
        raise UserError(f"`ckpt_path` {which}: no {what} in {where}; give a checkpoint's path{other}")
    if name is None:  # versions count within a name only
        found.sort(key=lambda run: (run / file).stat().st_mtime)
    return found[-1] / file


def run_folder(checkpoint: Path) -> Path:
    """The folder of a checkpoint's run, or the folder that contains a checkpoint outside a run.

    For the weights included in the package it is ``lightning_logs/pretrained``, so that nothing is written there.
    """
    folder = checkpoint.resolve().parent
    if folder == SHIPPED.parent:
        return Path(LOGS).resolve() / PRETRAINED
    return folder.parent if folder.name == CHECKPOINTS else folder
