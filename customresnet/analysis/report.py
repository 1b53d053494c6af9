"""The report of a run: its sections, in order, on one page."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from customresnet.analysis.evaluation.calibration import calibration
from customresnet.analysis.evaluation.classes import confusion, per_class
from customresnet.analysis.evaluation.curves import curves
from customresnet.analysis.evaluation.galleries import (
    NO_IMAGES,
    Order,
    choose_misclassified,
    hardest_and_easiest,
    misclassified,
    parse_pair,
    random_subset,
)
from customresnet.analysis.evaluation.overview import overview
from customresnet.analysis.evaluation.predictions import Predictions, predict
from customresnet.analysis.network.architecture import architecture
from customresnet.analysis.network.gradcam import Target, find_layer, gradcam
from customresnet.analysis.network.layers import profile
from customresnet.analysis.page import Section, build_sections, write_page
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.models import network_name
from customresnet.runs.checkpoint import load_network, read_checkpoint
from customresnet.runs.folders import CONFIG, LAST, run_folder
from customresnet.runs.record import RunRecord
from customresnet.runtime import files
from customresnet.runtime.errors import UserError
from customresnet.runtime.formatting import data_name, few


@dataclass(frozen=True)
class Gallery:
    """The images that the report shows.

    Args:
        images: Number of misclassified images; 0 leaves the galleries out.
        order: Most confident mistakes first, or a random sample.
        pair: Only images of one class predicted as another: "cat->dog".
        seed: Seed of the random sample.
        layer: Layer that Grad-CAM explains. Default: the last stage that returns a feature map.
        target: Class that Grad-CAM explains.
        opacity: Opacity of Grad-CAM's map over the image, from 0 to 1.
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
            raise UserError(f"`gallery.images` must be at least 0; received {self.images}")
        if not 0 <= self.opacity <= 1:
            raise UserError(f"`gallery.opacity` must be from 0 to 1; received {self.opacity:g}")
        if self.pair:
            parse_pair(self.pair, classes)


def write_report(path: Path, images: LabelledImages, gallery: Gallery = Gallery(), output: Path | None = None) -> Path:
    """Write the report of a checkpoint, and add its figures to the run's TensorBoard events.

    ``images`` are the test images. By default, ``output`` is report/ in the run's folder, or report_NAME/ for another
    checkpoint than the last.

    Returns:
        The path of the page.
    """
    folder, checkpoint = run_folder(path), read_checkpoint(path)
    output = output or folder / ("report" if path.name == LAST else f"report_{path.stem}")
    files.make_folder(output, "`output`")
    prep = Preprocessing.from_checkpoint(checkpoint)
    images = images.in_order_of(prep.classes)
    if images.classes != prep.classes:
        raise UserError(
            f"`source`: the images have the classes {few(images.classes)}, the checkpoint {few(prep.classes)}"
        )
    gallery.check(prep.classes)
    network = load_network(checkpoint)
    gallery = replace(gallery, layer=find_layer(network, gallery.layer, prep.image_size))
    predictions = predict(network, images, prep)
    run = RunRecord.beside(path, checkpoint)
    builders: list[Callable[[], Section]] = [
        lambda: overview(predictions, checkpoint, run.config, run.result),
        lambda: curves(run.metrics),
        lambda: per_class(predictions),
        lambda: confusion(predictions),
        lambda: calibration(predictions),
        *_galleries(network, predictions, prep, gallery),
        lambda: hardest_and_easiest(predictions),
        lambda: architecture(profile(network, prep.image_size)),
    ]
    sections = build_sections(builders, "report")
    name = network_name(checkpoint["hyper_parameters"]["network"])
    page = write_page(output, f"{name} on {data_name(*run.data)}: {folder.parent.name}, {folder.name}", sections)
    if (folder / CONFIG).is_file():
        _add_to_tensorboard(folder, sections)
    print(f"report: {files.shown(page.resolve())}")
    return page


def _galleries(
    network: nn.Module, predictions: Predictions, prep: Preprocessing, gallery: Gallery
) -> list[Callable[[], Section]]:
    """Misclassified images, Grad-CAM for them, and Grad-CAM for correctly classified images."""
    wrong = choose_misclassified(predictions, gallery.images, gallery.order, gallery.pair, gallery.seed)
    correct = random_subset(predictions.correct.nonzero().flatten(), (gallery.images + 1) // 2, gallery.seed)

    def explained(name: str, title: str, chosen: Tensor, target: Target) -> Section:
        if not len(chosen):
            return Section(name, title, missing="there are no such images" if gallery.images else NO_IMAGES)
        return gradcam(network, predictions, chosen, prep, gallery.layer, target, gallery.opacity, name, title)

    return [
        lambda: misclassified(predictions, wrong, gallery.images, gallery.pair),
        lambda: explained("gradcam_wrong", "Grad-CAM: misclassified images", wrong, gallery.target),
        lambda: explained("gradcam_right", "Grad-CAM: correctly classified images", correct, "predicted"),
    ]


def _add_to_tensorboard(folder: Path, sections: list[Section]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    try:
        with SummaryWriter(str(folder)) as writer:
            for section in sections:
                for number, figure in enumerate(section.figures.values(), start=1):
                    writer.add_figure(f"report/{section.name}" + f" {number}" * (len(section.figures) > 1), figure)
    except OSError as error:  # the page is complete
        print(f"warning: the figures could not be added to the run's TensorBoard events ({error})")
