"""Runs on disk: lightning_logs/<name>/version_N/ with checkpoints/last.ckpt, and result.json once it is finished."""

import re
from pathlib import Path
from typing import Any

import torch

from customresnet.runs import weights
from customresnet.runtime.errors import UserError

LOGS = "lightning_logs"
CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
RESULT = "result.json"
PRETRAINED = "pretrained"
SHIPPED = Path(__file__).resolve().parents[1] / "pretrained" / "advanced_net.safetensors"
"""The weights that ship with the package, which go by the name of ``pretrained``."""


def versions(root: Path, name: str) -> list[Path]:
    """The run folders of a name, oldest first."""
    folders = (root / LOGS / name).glob("version_*")
    found = [(int(m[1]), folder) for folder in folders if (m := re.fullmatch(r"version_(\d+)", folder.name))]
    return [path for _, path in sorted(found)]


def find_checkpoint(ckpt_path: str, root: Path, name: str | None = None, *, unfinished: bool = False) -> Path:
    """The checkpoint that ``--ckpt_path`` means: a file, a run's folder, ``last`` or ``pretrained``.

    Args:
        ckpt_path: What the user gave.
        root: Folder that holds lightning_logs.
        name: The run's name, for ``last``; None is any.
        unfinished: For ``last``, look for a run to go on with, not for any run.

    Raises:
        UserError: There is no such checkpoint.
    """
    if ckpt_path == "last":
        names = [name] if name else sorted(folder.name for folder in (root / LOGS).glob("*"))
        candidates = [run for each in names for run in versions(root, each) if (run / CHECKPOINTS / LAST).is_file()]
        if unfinished:
            candidates = [run for run in candidates if not (run / RESULT).is_file()]
        if not candidates:
            what = "unfinished run" if unfinished else "run with a checkpoint"
            where = root / LOGS / name if name else root / LOGS
            other = ", or the run's own --config or --trainer.run_name" if name else ""
            raise UserError(f"--ckpt_path last: no {what} in {where}; give a checkpoint's path{other}")
        if name is None:  # versions count within a name only
            candidates.sort(key=lambda run: (run / CHECKPOINTS / LAST).stat().st_mtime)
        return candidates[-1] / CHECKPOINTS / LAST
    if unfinished and (ckpt_path == PRETRAINED or ckpt_path.endswith(weights.SUFFIX)):
        raise UserError(f"--ckpt_path {ckpt_path}: these weights are for use; there is no run of them to go on with")
    path = SHIPPED if ckpt_path == PRETRAINED else Path(ckpt_path)
    if path.is_dir():
        path = path / CHECKPOINTS / LAST
    if not path.is_file():
        raise UserError(f"--ckpt_path {ckpt_path}: no such checkpoint")
    return path


def run_folder(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to; a checkpoint on its own belongs to its folder.

    What is made of the weights that ship with the package does not go into the package.
    """
    folder = checkpoint.resolve().parent
    if folder == SHIPPED.parent:
        return Path(LOGS).resolve() / PRETRAINED
    return folder.parent if folder.name == CHECKPOINTS else folder


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint of this project, or weights in the form that ships with it.

    Raises:
        UserError: It is truncated, no checkpoint, or another project's.
    """
    if path.suffix == weights.SUFFIX:
        return weights.read(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint make the unpickler raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--ckpt_path {path} is truncated or not a checkpoint ({reason[:100]})") from error
    if not isinstance(checkpoint, dict) or not {"hyper_parameters", "preprocessing", "state_dict"} <= checkpoint.keys():
        raise UserError(f"--ckpt_path {path} is not a checkpoint of this project's `fit`")
    return checkpoint
