"""export: write a trained network to a file to share."""

from pathlib import Path
from typing import Literal

from customresnet.runs.checkpoint import read_checkpoint, write_weights
from customresnet.runs.folders import WEIGHTS_SUFFIX, find_checkpoint, run_folder
from customresnet.runs.record import RunRecord
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import make_folder, shown

Format = Literal["safetensors"]


def export(
    ckpt_path: str | None = None,
    format: Format = "safetensors",
    output: Path | None = None,
    source: str | None = None,
) -> Path:
    """Write a finished run's weights, with their recipe and results, to one file.

    Args:
        ckpt_path: last or best (of the newest run), a checkpoint, or a run's folder.
        format: File format. safetensors contains only tensors and text, no code.
        output: File to write. Default: <network>.safetensors in the run's folder.
        source: Name of the data set to record in the file. Default: the run's source.

    Returns:
        The path of the file.
    """
    if ckpt_path is None:
        raise UserError("export needs `ckpt_path`: last, a checkpoint or a run's folder")
    path = find_checkpoint(ckpt_path, Path("."))
    checkpoint = read_checkpoint(path)
    record = RunRecord.beside(path, checkpoint)
    complete = {"trainer", "data"} <= record.config.keys() and {"parameters", "epochs"} <= record.result.keys()
    if not (complete and record.metrics):
        raise UserError(f"`ckpt_path` {ckpt_path}: the run's records are missing or it is unfinished; finish it first")
    output = output or run_folder(path) / f"{record.network}{WEIGHTS_SUFFIX}".replace(", ", "_").replace(" ", "_")
    if output.suffix != WEIGHTS_SUFFIX:
        raise UserError(f"`output` must be a {WEIGHTS_SUFFIX} file; received {output}")
    make_folder(output.parent, "`output`")
    print(write_weights(output, checkpoint, vars(record), source))
    print(f"written: {shown(output.resolve())}")
    return output
