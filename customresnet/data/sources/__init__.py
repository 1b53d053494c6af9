"""Read a labelled image set into memory: CIFAR (torchvision), an image tree or zip, or scikit-learn's digits."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from customresnet.data.labelled_images import DEFAULT_IMAGE_SIZE, LabelledImages, Split
from customresnet.data.sources.folder import count_tree, load_tree
from customresnet.data.sources.image_files import fit_to_square
from customresnet.runtime.errors import UserError

SourceName = Literal["cifar10", "cifar100", "folder", "digits"]

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
DIGITS_CLASSES = tuple("0123456789")
SIZES: dict[str, dict[Split, int]] = {
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "digits": {"train": 1_437, "test": 360},
}
"""Images of the sources whose number is fixed."""


def load(source: SourceName, root: Path | None, split: Split, image_size: int | None = None) -> LabelledImages:
    """Read one split of a source.

    Args:
        source: Where the images come from.
        root: Folder of the CIFAR-10 archive (downloaded there when absent), or the image tree or zip of ``folder``.
        split: Which split to read.
        image_size: Side in pixels to resize to; None reads 32x32 images and refuses any other size.

    Raises:
        UserError: The data cannot be had or read; the message names the flag that mends it.
    """
    match source:
        case "cifar10" | "cifar100":
            data = _load_cifar(source, Path(root or "data"), split)
        case "folder":
            return load_tree(root, split, image_size)
        case "digits":
            data = _load_digits(split)
    if image_size not in (None, DEFAULT_IMAGE_SIZE):
        resized = [np.asarray(fit_to_square(Image.fromarray(image), image_size)) for image in data.images.numpy()]
        data = LabelledImages(torch.from_numpy(np.stack(resized)), data.labels, data.classes)
    return data


# --------------------------------------------------------------------------------------------------------------- CIFAR


def _load_cifar(source: Literal["cifar10", "cifar100"], root: Path, split: Split) -> LabelledImages:
    from torchvision.datasets import CIFAR10, CIFAR100

    kind, name = (CIFAR10, "CIFAR-10") if source == "cifar10" else (CIFAR100, "CIFAR-100")
    try:
        dataset = kind(str(root), train=split == "train", download=True)
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError; a broken archive any of the three
        archive = root / kind.filename
        damaged = f"; the archive {archive} is damaged and could not be replaced" if archive.exists() else ""
        raise UserError(
            f"{name} is not in --data.root {root} and could not be downloaded ({error}){damaged}. "
            "With the images at hand, pass --data.source folder --data.root PATH (a directory or .zip of "
            "{train,test}/<class>/*.png); to see the project run without them: make demo"
        ) from error
    # torchvision turns the archive's channels round without moving a byte; a batch is gathered by whole pixels
    images = torch.from_numpy(np.ascontiguousarray(dataset.data))
    return LabelledImages(images, torch.tensor(dataset.targets), class_names(source, root))


# -------------------------------------------------------------------------------------------------------------- digits


def _load_digits(split: Split) -> LabelledImages:
    """scikit-learn's 1,797 8x8 digits, enlarged to 32x32 RGB; a fixed fifth of each class is the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    parts = train_test_split(np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0)
    indices = np.sort(parts[0] if split == "train" else parts[1])
    grey = (digits.images[indices] * (255 / 16)).round().astype(np.uint8)
    size = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
    images = [np.asarray(Image.fromarray(g).resize(size, Image.Resampling.BICUBIC).convert("RGB")) for g in grey]
    labels = torch.from_numpy(digits.target[indices].astype(np.int64))
    return LabelledImages(torch.from_numpy(np.stack(images)), labels, DIGITS_CLASSES)


def class_names(source: SourceName, root: Path | None) -> tuple[str, ...]:
    """The classes of a source, without reading an image."""
    match source:
        case "cifar10":
            return CIFAR10_CLASSES
        case "cifar100":
            return CIFAR100_CLASSES
        case "digits":
            return DIGITS_CLASSES
        case "folder":
            return tuple(count_tree(root)["train"])


def count(source: SourceName, root: Path | None, split: Split) -> int:
    """How many images a split of a source has, without reading one."""
    return sum(count_tree(root)[split].values()) if source == "folder" else SIZES[source][split]
