"""report: write the report of a run."""

from pathlib import Path

from customresnet.analysis.evaluation.predictions import DataOptions
from customresnet.analysis.report import Gallery, write_report
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runs.checkpoint import read_checkpoint
from customresnet.runs.folders import find_checkpoint
from customresnet.runs.record import RunRecord


def report(
    ckpt_path: str, data: DataOptions = DataOptions(), gallery: Gallery = Gallery(), output: Path | None = None
) -> Path:
    """Report on a run on one self-contained page: recipe, accuracy, curves, mistakes, Grad-CAM, architecture.

    Args:
        ckpt_path: last or best (of the newest run), pretrained, a checkpoint, or a run's folder.
        data: The test images.
        gallery: The images that the report shows.
        output: Folder to write to. Default: report/ in the run's folder.

    Returns:
        The path of the page.
    """
    path = find_checkpoint(ckpt_path, Path("."))
    checkpoint = read_checkpoint(path)
    prep = Preprocessing.from_checkpoint(checkpoint)
    images = data.of_run(prep, RunRecord.beside(path, checkpoint).config).load(prep.image_size)
    return write_report(path, images, gallery, output)
