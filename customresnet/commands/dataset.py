"""dataset: show the contents of a data set on one page."""

from pathlib import Path

from customresnet.analysis.dataset.augmentations import augmentations
from customresnet.analysis.dataset.duplicates import THRESHOLD, check_threshold, duplicates
from customresnet.analysis.dataset.samples import class_images, sample_predictions
from customresnet.analysis.dataset.statistics import class_counts, pixel_statistics
from customresnet.analysis.page import build_sections, write_page
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.runs.folders import find_checkpoint
from customresnet.runtime import files
from customresnet.runtime.errors import UserError


def dataset(
    data: CIFAR10DataModule,
    ckpt_path: str | None = None,
    output: Path | None = None,
    samples: int = 10,
    augmented: int = 19,
    predictions: int = 20,
    duplicate_threshold: float = THRESHOLD,
) -> Path:
    """Show a data set on one page: class counts, statistics, samples, augmentation and duplicates.

    Args:
        data: The images.
        ckpt_path: Checkpoint for sample predictions: last, best, pretrained, a checkpoint, or a run's folder.
        output: Folder to write to. Default: dataset/<source>.
        samples: Images of each class.
        augmented: Augmented versions of one image.
        predictions: Test images with their predicted class.
        duplicate_threshold: Minimum similarity, at most 1, of a test and a training image to be near-duplicates.

    Returns:
        The path of the page.
    """
    for name, number in (("samples", samples), ("augmented", augmented), ("predictions", predictions)):
        if number < 1:
            raise UserError(f"`{name}` must be at least 1; received {number}")
    check_threshold(duplicate_threshold)
    output = output or Path("dataset") / data.source
    files.make_folder(output, "`output`")
    checkpoint = find_checkpoint(ckpt_path, Path(".")) if ckpt_path else None
    data.prepare_data()
    data.read_images("fit")
    train, test = data.train_images, data.test_images
    sections = build_sections(
        [
            lambda: class_counts(data),
            lambda: pixel_statistics(data),
            lambda: class_images(train, samples, data.seed),
            lambda: augmentations(data, augmented),
            lambda: sample_predictions(test, checkpoint, predictions, data.seed),
            lambda: duplicates(train, test, duplicate_threshold),
        ],
        "data set",
    )
    name = data.root.name if data.source == "folder" and data.root else data.source
    page = write_page(output, f"Data set: {name}", sections)
    numbers = {section.name: section.numbers for section in sections}
    print("\n".join([numbers["classes"]["summary"], *data.notes]))
    for statistic in ("mean", "std"):
        measured, used = (_rounded(numbers["pixels"][kind][statistic]) for kind in ("measured", "used"))
        print(f"{statistic:4} of the training images {measured}; used: {used}")
    found = numbers["duplicates"]
    print(f"test images with a duplicate in train: {found['exact']:,} exact, {found['near']:,} near")
    print(f"written: {files.shown(page.resolve())}")
    return page


def _rounded(numbers: list[float]) -> str:
    return "[" + ", ".join(f"{number:.6f}" for number in numbers) + "]"
