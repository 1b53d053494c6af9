"""Decode image files, resize images to squares, and read image files for prediction."""

import io
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from customresnet.data.labelled_images import LabelledImages
from customresnet.runtime.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "MPO", "BLP", "CUR", "DCX", "DDS")
FORMATS += ("DIB", "FLI", "FTEX", "GBR", "ICNS", "ICO", "IM", "MSP", "PCD", "PCX", "PIXAR", "PSD", "QOI", "SGI", "SUN")
FORMATS += ("XBM", "XPM", "TGA")  # TGA last: it has no signature
"""Pillow's names of the formats that are read.

Not those that Pillow hands to other programs (EPS to Ghostscript, WMF to Windows), those that it can only identify (MPEG,
HDF5), containers (IPTC), and FITS, whose values are physical quantities of any range.
"""

HIDDEN = ("__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN")


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of the image files that can be read, in lower case, each with its dot."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or was made by an operating system: ``.git``, ``__MACOSX``, ``@eaDir``."""
    return name.startswith(".") or name in HIDDEN


def fit_to_square(image: Image.Image, size: int) -> Image.Image:
    """Resize so that the shorter side is ``size`` pixels, then crop the center square."""
    return image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def resize(data: LabelledImages, size: int) -> LabelledImages:
    """Resize all images to squares of ``size`` pixels."""
    images = [np.asarray(fit_to_square(Image.fromarray(image), size)) for image in data.images.numpy()]
    return LabelledImages(torch.from_numpy(np.stack(images)), data.labels, data.classes)


def decode(name: str, read: Callable[[], bytes]) -> Image.Image:
    """Decode the bytes that ``read`` returns to an RGB image. An error names the file ``name``."""
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(read())))
        if image.mode.startswith("I"):  # 16-bit gray, which convert() would clip to white
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        return image.convert("RGB")
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise UserError(f"cannot read the image {name}: {error}; replace or remove the file") from error


def read_pictures(paths: Iterable[Path], size: int) -> tuple[Tensor, list[Path], list[tuple[int, int]]]:
    """Read image files, and all image files in directories, for prediction.

    Returns:
        The images ``(N, size, size, 3)`` uint8, their paths, and their original sizes (width, height).
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise UserError(f"`images` {path}: no .png, .jpg or .jpeg in this directory")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"`images` {path}: no such file or directory")
    pictures = [decode(str(path), path.read_bytes) for path in found]
    squares = np.stack([np.asarray(fit_to_square(picture, size)) for picture in pictures])
    return torch.from_numpy(squares), found, [picture.size for picture in pictures]
