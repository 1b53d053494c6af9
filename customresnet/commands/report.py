"""The report of a run: one page that says what was trained, how well, and where it fails."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from tqdm import tqdm

from customresnet.analysis.evaluation import predictions as network_outputs
from customresnet.analysis.evaluation.calibration import calibration
from customresnet.analysis.evaluation.confusion import confusion
from customresnet.analysis.evaluation.curves import curves
from customresnet.analysis.evaluation.galleries import (
    Order,
    choose_misclassified,
    hardest_and_easiest,
    misclassified,
    parse_pair,
    some_of,
)
from customresnet.analysis.evaluation.overview import overview
from customresnet.analysis.evaluation.per_class import per_class
from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.network.architecture import architecture
from customresnet.analysis.network.gradcam import Target, find_layer, gradcam
from customresnet.analysis.page import Section, write_page
from customresnet.analysis.run_images import DataOptions
from customresnet.data import sources
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runs import folders as runs
from customresnet.runs.network import load_network
from customresnet.runs.records import as_numbers, read_record
from customresnet.runtime import files
from customresnet.runtime.errors import UserError
from customresnet.runtime.screen import interactive


@dataclass(frozen=True)
class Gallery:
    """Which images the report shows.

    Args:
        images: How many misclassified images; 0 leaves the galleries out.
        order: The most confident mistakes first, or a random choice.
        pair: Only images of one class taken for another: "cat->dog".
        seed: Of the random choice.
        layer: Layer that Grad-CAM looks at. Default: the last stage before the pooling.
        target: Class whose evidence Grad-CAM shows.
        opacity: Of Grad-CAM's map over the image.
    """

    images: int = 20
    order: Order = "confidence"
    pair: str | None = None
    seed: int = 0
    layer: str | None = None
    target: Target = "both"
    opacity: float = 0.5

    def check(self, classes: tuple[str, ...]) -> None:
        if self.images < 0:
            raise UserError(f"--gallery.images must be 0 or more; received {self.images}")
        if not 0 <= self.opacity <= 1:
            raise UserError(f"--gallery.opacity must be from 0 to 1; received {self.opacity:g}")
        if self.pair:
            parse_pair(self.pair, classes)


def report(
    ckpt_path: str,
    data: DataOptions = DataOptions(),
    gallery: Gallery = Gallery(),
    output: Path | None = None,
) -> Path:
    """Write the report of a run: one page to read or to send, and its pictures and tables as files.

    Args:
        ckpt_path: last (the newest run), a checkpoint or a run's folder.
        data: Where the test images are.
        gallery: Which images the report shows.
        output: Folder to write to. Default: report/ in the run's folder.

    Returns:
        The path of the page.
    """
    path = runs.find_checkpoint(ckpt_path, Path("."))
    checkpoint = runs.read_checkpoint(path)
    prep = Preprocessing.from_checkpoint(checkpoint)
    source, root = data.place(prep, _recorded("config", path, checkpoint))
    return write_report(path, sources.load(source, root, "test", prep.image_size), gallery, output)


def write_report(path: Path, images: LabelledImages, gallery: Gallery = Gallery(), output: Path | None = None) -> Path:
    """Write the report of a checkpoint.

    Args:
        path: The checkpoint.
        images: The test images.
        gallery: Which of them to show.
        output: Folder to write to; None is report/ in the run's folder, or report_NAME/ for another checkpoint of it.
    """
    folder, checkpoint = runs.run_folder(path), runs.read_checkpoint(path)
    output = output or folder / ("report" if path.name == runs.LAST else f"report_{path.stem}")
    files.make_folder(output, "--output")
    prep = Preprocessing.from_checkpoint(checkpoint)
    if images.classes != prep.classes:
        raise UserError(f"--data.source: its classes are {list(images.classes)}, the checkpoint's {list(prep.classes)}")
    gallery.check(prep.classes)
    network = load_network(checkpoint)
    gallery = replace(gallery, layer=find_layer(network, gallery.layer, prep.image_size))
    answers = network_outputs.run(network, images, prep)
    rows, config, result = (_recorded(name, path, checkpoint) for name in ("metrics", "config", "result"))
    steps: list[Callable[[], Section]] = [
        lambda: overview(answers, checkpoint, config, result),
        lambda: _curves(rows),
        lambda: per_class(answers),
        lambda: confusion(answers),
        lambda: calibration(answers),
        *_galleries(network, answers, prep, gallery),
        lambda: hardest_and_easiest(answers),
        lambda: architecture(network, prep.image_size),
    ]
    views = [step() for step in tqdm(steps, "report", leave=False, unit="view", disable=not interactive())]
    title = f"{checkpoint['hyper_parameters']['network']} on {prep.source}: {folder.parent.name}, {folder.name}"
    page = write_page(output, title, views)
    if (folder / "config.yaml").is_file():
        _into_tensorboard(folder, views)
    print(f"report: {files.shown(page.resolve())}")
    return page


def _galleries(
    network: nn.Module, answers: Predictions, prep: Preprocessing, gallery: Gallery
) -> list[Callable[[], Section]]:
    """Mistakes, where the network looked in them, and where it looked when it was right."""
    wrong = choose_misclassified(answers, gallery.images, gallery.order, gallery.pair, gallery.seed)
    right = some_of(answers.correct.nonzero().flatten(), (gallery.images + 1) // 2, gallery.seed)
    why = "--gallery.images is 0" if gallery.images == 0 else "there is no such image"

    def shown(name: str, title: str, chosen: Tensor, target: Target) -> Section:
        if not len(chosen):
            return Section(name, title, missing=why)
        return gradcam(network, answers, chosen, prep, gallery.layer, target, gallery.opacity, name, title)

    return [
        lambda: misclassified(answers, wrong, gallery.images, gallery.pair),
        lambda: shown("gradcam_wrong", "Grad-CAM: misclassified images", wrong, gallery.target),
        lambda: shown("gradcam_right", "Grad-CAM: correctly classified images", right, "predicted"),
    ]


def _curves(rows: list[dict[str, str]] | None) -> Section:
    if not rows:
        return Section("curves", "Curves", missing="the run's metrics.csv is not beside the checkpoint")
    return curves(as_numbers(rows))


def _into_tensorboard(folder: Path, views: list[Section]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    try:
        with SummaryWriter(str(folder)) as writer:
            for view in views:
                for number, figure in enumerate(view.figures.values(), start=1):
                    writer.add_figure(f"report/{view.name}" + f" {number}" * (len(view.figures) > 1), figure)
    except OSError as error:  # the page is there
        print(f"warning: the pictures are not in the run's TensorBoard ({error})")


def _recorded(name: str, path: Path, checkpoint: dict[str, Any]) -> Any:
    """What a run wrote down beside its checkpoint, or what weights hold that were written to be shipped.

    None if there is nothing, or if the checkpoint was copied elsewhere.
    """
    in_place = path.parent.name == runs.CHECKPOINTS
    beside = read_record(name, runs.run_folder(path)) if in_place else None
    return checkpoint.get(name) if beside is None else beside
