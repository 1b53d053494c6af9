"""Read a labelled image set into memory: CIFAR-10 (torchvision), an image tree or zip, or scikit-learn's digits."""

import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from customresnet.errors import UserError
from customresnet.screen import interactive

SourceName = Literal["cifar10", "folder", "digits"]
Split = Literal["train", "test"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
DEFAULT_IMAGE_SIZE = 32
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS_CLASSES = tuple("0123456789")
SIZES: dict[str, dict[Split, int]] = {
    "cifar10": {"train": 50_000, "test": 10_000},
    "digits": {"train": 1_437, "test": 360},
}
"""Images of the sources whose number is fixed."""


@dataclass(frozen=True)
class LabelledImages:
    """A whole split in memory.

    Attributes:
        images: ``(N, H, W, 3)`` uint8, RGB.
        labels: ``(N,)`` int64, indices into ``classes``.
        classes: Class names.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> "LabelledImages":
        return LabelledImages(self.images[indices], self.labels[indices], self.classes)


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
        case "cifar10":
            data = _load_cifar10(Path(root or "data"), split)
        case "folder":
            return _load_folder(root, split, image_size)
        case "digits":
            data = _load_digits(split)
    if image_size not in (None, DEFAULT_IMAGE_SIZE):
        resized = [np.asarray(fit_to_square(Image.fromarray(image), image_size)) for image in data.images.numpy()]
        data = LabelledImages(torch.from_numpy(np.stack(resized)), data.labels, data.classes)
    return data


def fit_to_square(image: Image.Image, size: int) -> Image.Image:
    """Resize so that the shorter side is ``size`` pixels, then cut the centre square."""
    return image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def decode(name: str, file: Callable[[], bytes]) -> Image.Image:
    """Decode one image file to RGB; ``name`` is for the error."""
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(file())))
        if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip to white
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        return image.convert("RGB")
    except Exception as error:  # damaged bytes make a decoder raise anything
        raise UserError(f"cannot read the image {name}: {error}; mend or remove that file") from error


# ------------------------------------------------------------------------------------------------------------ CIFAR-10


def _load_cifar10(root: Path, split: Split) -> LabelledImages:
    from torchvision.datasets import CIFAR10

    try:
        dataset = CIFAR10(str(root), train=split == "train", download=True)
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError; a broken archive any of the three
        archive = root / CIFAR10.filename
        damaged = f"; the archive {archive} is damaged and could not be replaced" if archive.exists() else ""
        raise UserError(
            f"CIFAR-10 is not in --data.root {root} and could not be downloaded ({error}){damaged}. "
            "With the images at hand, pass --data.source folder --data.root PATH (a directory or .zip of "
            "{train,test}/<class>/*.png); to see the project run without them: make demo"
        ) from error
    return LabelledImages(torch.from_numpy(dataset.data), torch.tensor(dataset.targets), CIFAR10_CLASSES)


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


# -------------------------------------------------------------------------------------------------------------- folder


@contextmanager
def _open_tree(root: Path | None) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """All names in a directory or .zip, those of folders with a "/" at the end, and how to read one."""
    if root is None:
        raise UserError("--data.source folder needs --data.root: a directory or .zip of {train,test}/<class>/ images")
    if root.is_dir():
        names = []
        for folder, subfolders, files in os.walk(root):
            inside = Path(folder).relative_to(root)
            names += [f"{(inside / name).as_posix()}/" for name in subfolders]
            names += [(inside / name).as_posix() for name in files]
        yield names, lambda name: (root / name).read_bytes()
    elif root.is_file():
        try:
            archive = zipfile.ZipFile(root)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"--data.root {root} is neither a directory nor a readable .zip ({error})") from error
        with archive:
            yield archive.namelist(), archive.read
    else:
        raise UserError(f"--data.root {root} does not exist; it must be a directory or a .zip")


def _load_folder(root: Path | None, split: Split, image_size: int | None) -> LabelledImages:
    """Read ``{train,test}/<class>/*.{png,jpg,jpeg}`` from a directory or, in place, from a .zip."""
    with _open_tree(root) as (names, read):
        tree = _image_tree(names, root)
        classes = _common_classes(tree, root)
        files = [(name, label) for label, c in enumerate(classes) for name in tree[split][c]]
        size = image_size or DEFAULT_IMAGE_SIZE
        images = np.empty((len(files), size, size, 3), dtype=np.uint8)

        def fill(index: int) -> None:
            name = files[index][0]
            image = decode(f"{root}/{name}", lambda: read(name))
            if image_size is None and image.size != (size, size):
                raise UserError(
                    f"{root}/{name} is {image.width}x{image.height} pixels, not {size}x{size}; "
                    f"to resize all images pass --data.image_size {size} (or another size)"
                )
            images[index] = np.asarray(fit_to_square(image, size))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = pool.map(fill, range(len(files)))
            for _ in tqdm(
                done, f"reading {split} images", len(files), leave=False, unit="img", disable=not interactive()
            ):
                pass
    labels = torch.tensor([label for _, label in files])
    return LabelledImages(torch.from_numpy(images), labels, tuple(classes))


def _image_tree(names: Iterable[str], root: Path | None) -> dict[str, dict[str, list[str]]]:
    """Split -> class -> sorted image names; one wrapping directory, as repository zips have, is looked through."""
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for name in sorted(names):
        parts = PurePosixPath(name).parts
        if any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        depth = next((d for d in (0, 1) if parts[d : d + 1] in (("train",), ("test",))), None)
        if depth is None:
            continue
        split, inside = parts[depth], parts[depth + 1 :]
        tree = found.setdefault("/".join(parts[:depth]), {"train": {}, "test": {}})
        if len(inside) == 1 and name.endswith("/"):
            tree[split].setdefault(inside[0], [])  # how a class without images shows up
        elif len(inside) == 2 and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            tree[split].setdefault(inside[0], []).append(name)
    whole = {wrapper: tree for wrapper, tree in found.items() if tree["train"] and tree["test"]}
    if len(whole) == 1:
        return next(iter(whole.values()))
    if whole:
        raise UserError(f"--data.root {root} holds several data sets: {', '.join(map(repr, whole))}; name one of them")
    raise UserError(f"--data.root {root} holds no {{train,test}}/<class>/*.{{png,jpg,jpeg}}")


def _common_classes(tree: dict[str, dict[str, list[str]]], root: Path | None) -> list[str]:
    train, test = set(tree["train"]), set(tree["test"])
    if train != test:
        only = "; ".join(
            f"only in {split}: {', '.join(sorted(classes))}"
            for split, classes in (("train", train - test), ("test", test - train))
            if classes
        )
        raise UserError(f"train and test in --data.root {root} have different classes ({only})")
    empty = [f"{split}/{c}" for split in tree for c in sorted(tree[split]) if not tree[split][c]]
    if empty:
        raise UserError(f"no images in {', '.join(empty)} of --data.root {root}; fill or remove the class folder")
    if len(train) < 2:
        raise UserError(f"--data.root {root} has only the class {', '.join(train)}; classification needs two or more")
    return sorted(train)


# ---------------------------------------------------------------------------------------------------- pictures by path


def read_pictures(paths: Iterable[Path], size: int) -> tuple[Tensor, list[Path], list[tuple[int, int]]]:
    """Read single image files, or all those in a directory, for prediction.

    Returns:
        The images ``(N, size, size, 3)`` uint8, their paths and their original sizes (width, height).
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise UserError(f"--images {path}: no .png, .jpg or .jpeg in this directory")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"--images {path}: no such file or directory")
    pictures = [decode(str(path), path.read_bytes) for path in found]
    squares = np.stack([np.asarray(fit_to_square(picture, size)) for picture in pictures])
    return torch.from_numpy(squares), found, [picture.size for picture in pictures]


def class_names(source: SourceName, root: Path | None) -> tuple[str, ...]:
    """The classes of a source, without reading an image."""
    match source:
        case "cifar10":
            return CIFAR10_CLASSES
        case "digits":
            return DIGITS_CLASSES
        case "folder":
            with _open_tree(root) as (names, _):
                return tuple(_common_classes(_image_tree(names, root), root))


def count(source: SourceName, root: Path | None, split: Split) -> int:
    """How many images a split of a source has, without reading one."""
    if source != "folder":
        return SIZES[source][split]
    with _open_tree(root) as (names, _):
        tree = _image_tree(names, root)
        _common_classes(tree, root)
        return sum(len(files) for files in tree[split].values())
