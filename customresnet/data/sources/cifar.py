"""CIFAR-10 and CIFAR-100, from torchvision's archives."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from filelock import FileLock

from customresnet.data.labelled_images import LabelledImages, Split
from customresnet.runtime.errors import UserError

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

CIFARName = Literal["cifar10", "cifar100"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_CLASSES = tuple(CIFAR100_NAMES.split())
CLASSES = {"cifar10": CIFAR10_CLASSES, "cifar100": CIFAR100_CLASSES}
SIZES: dict[Split, int] = {"train": 50_000, "test": 10_000}
DEFAULT_ROOT = Path("data")


def download_cifar(source: CIFARName, root: Path | None) -> None:
    """Download and extract an archive unless its files exist and are intact.

    If several processes start at the same time, the first one downloads and the others wait.

    Raises:
        UserError: The archive cannot be downloaded or extracted.
    """
    folder, archive = root or DEFAULT_ROOT, _archive(source, root)
    try:
        if _read(source, folder, "test") is not None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{archive}.lock"):
            _torchvision_class(source)(str(folder), train=False, download=True)
    except (OSError, RuntimeError, EOFError) as error:  # a URLError is an OSError; a damaged archive raises any of them
        damaged = f"; the archive {archive} is damaged and could not be replaced" if archive.exists() else ""
        raise UserError(
            f"{_name(source)} is not in `root` {folder} and could not be downloaded ({error}){damaged}. "
            "If you have the images, pass `source` folder and `root` PATH (a directory or .zip of "
            "{train,test}/<class>/*.png); to try the project without them, run: make demo"
        ) from error


def load_cifar(source: CIFARName, root: Path | None, split: Split) -> LabelledImages:
    """Read one split. Extract the archive first if needed, but do not download it.

    Raises:
        UserError: The archive is missing or damaged.
    """
    folder = root or DEFAULT_ROOT
    dataset = _read(source, folder, split)
    if dataset is None and _archive(source, root).exists():
        download_cifar(source, root)  # extracts the archive
        dataset = _read(source, folder, split)
    if dataset is None:
        raise UserError(f"{_name(source)} is not in `root` {folder}; call prepare_data() first to download it")
    # torchvision returns a transposed view, but batches are gathered pixel by pixel
    images = torch.from_numpy(np.ascontiguousarray(dataset.data))
    return LabelledImages(images, torch.tensor(dataset.targets), CLASSES[source])


def _read(source: CIFARName, folder: Path, split: Split) -> "CIFAR10 | None":
    """A split, or None if a file is missing or does not have its checksum."""
    try:
        return _torchvision_class(source)(str(folder), train=split == "train")
    except RuntimeError:
        return None


def _torchvision_class(source: CIFARName) -> "type[CIFAR10]":
    from torchvision.datasets import CIFAR10, CIFAR100

    return CIFAR10 if source == "cifar10" else CIFAR100


def _archive(source: CIFARName, root: Path | None) -> Path:
    return (root or DEFAULT_ROOT) / _torchvision_class(source).filename


def _name(source: CIFARName) -> str:
    return source.upper().replace("CIFAR", "CIFAR-")
