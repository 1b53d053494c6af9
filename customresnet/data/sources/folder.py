"""Read the images of a directory, or of a .zip without extracting it."""

import os
import posixpath
import stat
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from customresnet.data.labelled_images import DEFAULT_IMAGE_SIZE, LabelledImages, Split
from customresnet.data.sources.image_files import read_regular, read_square
from customresnet.data.sources.layout import Layout, find_layout
from customresnet.runtime.errors import UserError
from customresnet.runtime.screen import interactive

MAX_BYTES, MAX_DEPTH = 10**8, 50
"""Bounds of a file in a .zip: its size, and the folders around it; deeper ones are left out."""


def folder_layout(root: Path | None, test_share: float | None) -> Layout:
    """Find the images of a directory or .zip without reading them."""
    with _open(root) as (names, _):
        return find_layout(names, root or Path(), test_share)


def load_folder(root: Path | None, layout: Layout, split: Split, image_size: int | None) -> LabelledImages:
    """Read one split of a directory or .zip; see ``sources.load``."""
    files = [(name, label) for label, c in enumerate(layout.classes) for name in layout.files[split][c]]
    size = image_size or DEFAULT_IMAGE_SIZE
    images = np.empty((len(files), size, size, 3), dtype=np.uint8)
    with _open(root) as (_, read), ThreadPoolExecutor(os.cpu_count()) as pool:

        def fill(index: int) -> None:
            name = files[index][0]
            images[index], (width, height) = read_square(f"{root}/{name}", lambda: read(name), size)
            if image_size is None and (width, height) != (size, size):
                raise UserError(
                    f"{root}/{name} is {width}x{height} pixels, not {size}x{size}; "
                    f"pass `image_size` {size} (or another size) to resize all images"
                )

        filled = pool.map(fill, range(len(files)))
        for _ in tqdm(
            filled, f"reading {split} images", len(files), leave=False, unit="img", disable=not interactive()
        ):
            pass
    labels = torch.tensor([label for _, label in files])
    return LabelledImages(torch.from_numpy(images), labels, layout.classes)


@contextmanager
def _open(root: Path | None) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """All names in a directory or .zip, with "/" at the end of a folder's, and a function that reads a file."""
    if root is None:
        raise UserError("`source` folder needs `root`: a directory or .zip of {train,test}/<class>/ images")
    if root.is_dir():
        yield list(_walk(root, "", {os.path.realpath(root)})), lambda name: read_regular(root / name)
    elif root.is_file():
        try:
            archive = zipfile.ZipFile(root)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"`root` {root} is neither a directory nor a readable .zip ({error})") from error
        with archive:
            entries = _entries(archive)
            yield list(entries), lambda name: _read(archive, entries[name])
    else:
        raise UserError(f"`root` {root} does not exist; it must be a directory or a .zip")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The content of a .zip's entry, which may be much larger than the .zip."""
    if entry.file_size > MAX_BYTES:
        raise ValueError(f"its {entry.file_size:,} bytes are more than {MAX_BYTES:,}")
    return archive.read(entry)


def _walk(root: Path, inside: str, above: set[str]) -> Iterator[str]:
    """The names in a directory, and in all directories below, also linked ones, except a link to one of ``above``."""
    try:
        entries = list(os.scandir(root / inside))
    except OSError as error:
        raise UserError(f"cannot read the directory {root / inside} ({error.strerror})") from error
    for entry in entries:
        name = f"{inside}{entry.name}"
        if not entry.is_dir():
            yield name
        elif (target := os.path.realpath(entry)) in above:
            yield name  # which is skipped, like a file that is no image
        else:
            yield f"{name}/"
            yield from _walk(root, f"{name}/", above | {target})


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries of a .zip by name, with "/" between folders. Links to other entries are followed."""
    names = {info: info.filename.replace("\\", "/") for info in archive.infolist()}
    infos = {name: info for info, name in names.items() if name.count("/") <= MAX_DEPTH}
    entries = dict(infos)
    for name, info in infos.items():
        if stat.S_ISLNK(info.external_attr >> 16):
            link = _read(archive, info).decode(errors="replace") if info.file_size < 4096 else ""
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
            linked = [other for other in infos if f"{other}/".startswith(f"{target}/")]
            if linked:
                del entries[name]
            entries |= {name + other[len(target) :]: infos[other] for other in linked}
    return entries
