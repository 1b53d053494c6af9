"""Read a labeled image set into memory: CIFAR, a folder or .zip of images, or scikit-learn's digits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from customresnet.data.labelled_images import DEFAULT_IMAGE_SIZE, LabelledImages, Split
from customresnet.data.sources import cifar, digits
from customresnet.data.sources.folder import folder_layout, load_folder
from customresnet.data.sources.image_files import resize
from customresnet.runtime.errors import UserError

SourceName = Literal["cifar10", "cifar100", "folder", "digits"]


@dataclass(frozen=True)
class ImageSet:
    """What a source holds, found without reading images.

    Attributes:
        classes: Class names, in order.
        sizes: Number of images of each split; val is only there if the source has its own held-out images.
        load: Reads a split, with images of a given size.
        notes: What a folder's names were understood to mean, and what was skipped, in words.
    """

    classes: tuple[str, ...]
    sizes: dict[Split, int]
    load: Callable[[Split, int | None], LabelledImages]
    notes: tuple[str, ...] = ()


def find(source: SourceName, root: Path | None, test_share: float | None = None) -> ImageSet:
    """Find a source's images without reading or downloading them.

    ``root`` is the folder of the CIFAR archive, or the directory or .zip of ``folder``, and ``test_share`` the fraction
    of a folder's training images to test on, if it has no test images.

    Raises:
        UserError: A folder's names cannot be understood.
    """
    if source == "folder":
        layout = folder_layout(root, test_share)
        sizes = {split: sum(map(len, files.values())) for split, files in layout.files.items()}
        return ImageSet(layout.classes, sizes, lambda split, size: load_folder(root, layout, split, size), layout.notes)
    if test_share is not None:
        raise UserError(f"`test_share` {test_share:g} is an option of `source` folder; received `source` {source}")
    if source == "digits":
        return ImageSet(digits.CLASSES, digits.SIZES, lambda split, size: _resized(digits.load_digits(split), size))
    if source not in cifar.CLASSES:  # from a checkpoint's or run's record
        raise UserError(f"`source` must be cifar10, cifar100, folder or digits; received {source}")
    return ImageSet(
        cifar.CLASSES[source], cifar.SIZES, lambda split, size: _resized(cifar.load_cifar(source, root, split), size)
    )


def download(source: SourceName, root: Path | None) -> None:
    """Download a source's archive, if it has one, to ``root`` unless it is already there.

    Raises:
        UserError: The archive cannot be downloaded or extracted.
    """
    if source in ("cifar10", "cifar100"):
        cifar.download_cifar(source, root)


def load(
    source: SourceName,
    root: Path | None,
    split: Split,
    image_size: int | None = None,
    test_share: float | None = None,
) -> LabelledImages:
    """Read one split of a source, without downloading it; see ``find``.

    Images are resized to ``image_size`` pixels per side; None accepts 32x32 images only.

    Raises:
        UserError: The images are missing or cannot be read.
    """
    return find(source, root, test_share).load(split, image_size)


def class_names(source: SourceName, root: Path | None, test_share: float | None = None) -> tuple[str, ...]:
    """The classes of a source, found without reading images."""
    return find(source, root, test_share).classes


def count(source: SourceName, root: Path | None, split: Split, test_share: float | None = None) -> int:
    """The number of images in a split of a source, found without reading them."""
    return find(source, root, test_share).sizes.get(split, 0)


def _resized(data: LabelledImages, size: int | None) -> LabelledImages:
    return data if size in (None, DEFAULT_IMAGE_SIZE) else resize(data, size)
