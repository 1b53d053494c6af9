"""Read a labeled image set into memory: CIFAR, a folder or .zip of images, or scikit-learn's digits."""

from pathlib import Path
from typing import Literal

from customresnet.data.labelled_images import DEFAULT_IMAGE_SIZE, LabelledImages, Split
from customresnet.data.sources import cifar, digits
from customresnet.data.sources.folder import count_folder, load_folder
from customresnet.data.sources.image_files import resize

SourceName = Literal["cifar10", "cifar100", "folder", "digits"]


def download(source: SourceName, root: Path | None) -> None:
    """Download a source's archive, if it has one, to ``root`` unless it is already there.

    Raises:
        UserError: The archive cannot be downloaded or extracted.
    """
    if source in ("cifar10", "cifar100"):
        cifar.download_cifar(source, root)


def load(source: SourceName, root: Path | None, split: Split, image_size: int | None = None) -> LabelledImages:
    """Read one split of a source, without downloading it.

    ``root`` is the folder of the CIFAR archive, or the directory or .zip of ``folder``. Images are resized to
    ``image_size`` pixels per side; None accepts 32x32 images only.

    Raises:
        UserError: The images are missing or cannot be read.
    """
    match source:
        case "cifar10" | "cifar100":
            data = cifar.load_cifar(source, root, split)
        case "digits":
            data = digits.load_digits(split)
        case "folder":
            return load_folder(root, split, image_size)
    return data if image_size in (None, DEFAULT_IMAGE_SIZE) else resize(data, image_size)


def class_names(source: SourceName, root: Path | None) -> tuple[str, ...]:
    """The classes of a source, found without reading images."""
    match source:
        case "cifar10":
            return cifar.CIFAR10_CLASSES
        case "cifar100":
            return cifar.CIFAR100_CLASSES
        case "digits":
            return digits.CLASSES
        case "folder":
            return tuple(count_folder(root)["train"])


def count(source: SourceName, root: Path | None, split: Split) -> int:
    """The number of images in a split of a source, found without reading them."""
    match source:
        case "cifar10" | "cifar100":
            return cifar.SIZES[split]
        case "digits":
            return digits.SIZES[split]
        case "folder":
            return sum(count_folder(root)[split].values())
