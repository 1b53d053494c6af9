"""Read ``{train,test}/<class>/*.{png,jpg,jpeg}`` from a directory, or from a .zip without extracting it."""

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from tqdm import tqdm

from customresnet.data.labelled_images import DEFAULT_IMAGE_SIZE, LabelledImages, Split
from customresnet.data.sources.image_files import image_suffixes, read_square
from customresnet.runtime.errors import UserError
from customresnet.runtime.screen import interactive

Tree = dict[str, dict[str, list[str]]]
"""Split -> class -> sorted file names."""


def load_folder(root: Path | None, split: Split, image_size: int | None) -> LabelledImages:
    """Read one split of a directory or .zip; see ``sources.load``."""
    with _open(root) as (names, read):
        tree = _find_images(names, root)
        classes = _common_classes(tree, root)
        files = [(name, label) for label, c in enumerate(classes) for name in tree[split][c]]
        size = image_size or DEFAULT_IMAGE_SIZE
        images = np.empty((len(files), size, size, 3), dtype=np.uint8)

        def fill(index: int) -> None:
            name = files[index][0]
            images[index], (width, height) = read_square(f"{root}/{name}", lambda: read(name), size)
            if image_size is None and (width, height) != (size, size):
                raise UserError(
                    f"{root}/{name} is {width}x{height} pixels, not {size}x{size}; "
                    f"pass `image_size` {size} (or another size) to resize all images"
                )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            filled = pool.map(fill, range(len(files)))
            bar = tqdm(
                filled, f"reading {split} images", len(files), leave=False, unit="img", disable=not interactive()
            )
            for _ in bar:
                pass
    labels = torch.tensor([label for _, label in files])
    return LabelledImages(torch.from_numpy(images), labels, tuple(classes))


def count_folder(root: Path | None) -> dict[str, dict[str, int]]:
    """Split -> class, in order -> number of images, found without reading them."""
    with _open(root) as (names, _):
        tree = _find_images(names, root)
        classes = _common_classes(tree, root)
    return {split: {c: len(tree[split][c]) for c in classes} for split in tree}


@contextmanager
def _open(root: Path | None) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """All names in a directory or .zip, with "/" at the end of a folder's, and a function that reads a file."""
    if root is None:
        raise UserError("`source` folder needs `root`: a directory or .zip of {train,test}/<class>/ images")
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
            raise UserError(f"`root` {root} is neither a directory nor a readable .zip ({error})") from error
        with archive:
            yield archive.namelist(), archive.read
    else:
        raise UserError(f"`root` {root} does not exist; it must be a directory or a .zip")


def _find_images(names: Iterable[str], root: Path | None) -> Tree:
    """The images of the only data set among the names, at the top or inside one folder, as in a repository's .zip."""
    found: dict[str, Tree] = {}
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
            tree[split].setdefault(inside[0], [])  # a class without images is kept, to report it
        elif len(inside) == 2 and PurePosixPath(name).suffix.lower() in image_suffixes():
            tree[split].setdefault(inside[0], []).append(name)
    complete = {folder: tree for folder, tree in found.items() if tree["train"] and tree["test"]}
    if len(complete) == 1:
        return next(iter(complete.values()))
    if complete:
        raise UserError(f"`root` {root} contains several data sets: {', '.join(map(repr, complete))}; choose one")
    raise UserError(f"`root` {root} contains no {{train,test}}/<class>/*.{{png,jpg,jpeg}}")


def _common_classes(tree: Tree, root: Path | None) -> list[str]:
    train, test = set(tree["train"]), set(tree["test"])
    if train != test:
        only = "; ".join(
            f"only in {split}: {', '.join(sorted(classes))}"
            for split, classes in (("train", train - test), ("test", test - train))
            if classes
        )
        raise UserError(f"train and test in `root` {root} have different classes ({only})")
    empty = [f"{split}/{c}" for split in tree for c in sorted(tree[split]) if not tree[split][c]]
    if empty:
        raise UserError(f"no images in {', '.join(empty)} of `root` {root}; fill or remove the class folder")
    if len(train) < 2:
        raise UserError(f"`root` {root} has only the class {', '.join(train)}; classification needs two or more")
    return sorted(train)
