"""Decode image files to RGB squares of 8 bits."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from customresnet.data.labelled_images import LabelledImages
from customresnet.data.sources.pixels import to_rgb
from customresnet.runtime.errors import UserError

COMMON = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "MPO")
RARE = ("BLP", "CUR", "DCX", "DDS", "DIB", "FLI", "FTEX", "GBR", "ICNS", "ICO", "IM", "MSP", "PCD", "PCX", "PIXAR")
MORE = ("PSD", "QOI", "SGI", "SUN", "XBM", "XPM", "TGA")
FORMATS = (*COMMON, *RARE, *MORE)
"""Pillow's names of the formats that are read.

Not those that Pillow hands to other programs (EPS to Ghostscript, WMF to Windows), those that it can only identify
(MPEG, HDF5), containers (IPTC), and FITS, whose values are physical quantities of any range.
"""

HIDDEN = ("__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN")


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of the image files that can be read, in lower case, each with its dot."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or was made by an operating system: ``.git``, ``__MACOSX``, ``@eaDir``."""
    return name.startswith(".") or name in HIDDEN


def read_regular(path: Path) -> bytes:
    """The content of a file. A named pipe, for example, would block."""
    if not path.is_file():
        raise ValueError("it is no regular file")
    return path.read_bytes()


def fit_to_square(image: Image.Image, size: int) -> Image.Image:
    """Resize so that the shorter side is ``size`` pixels, then crop the center square."""
    return image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def resize(data: LabelledImages, size: int) -> LabelledImages:
    """Resize all images to squares of ``size`` pixels."""
    images = [np.asarray(fit_to_square(Image.fromarray(image), size)) for image in data.images.numpy()]
    return LabelledImages(torch.from_numpy(np.stack(images)), data.labels, data.classes)


def read_square(name: str, read: Callable[[], bytes], size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode the bytes that ``read`` returns, or their first frame, to an RGB square ``(size, size, 3)`` uint8.

    A JPEG whose sides are at least 8 times ``size`` is decoded at 1/2, 1/4 or 1/8 of its resolution, but at least
    4 times ``size``. This takes a fraction of the time and memory, and changes the pixels slightly.

    Returns:
        The square, and the original width and height.

    Raises:
        UserError: The file ``name`` cannot be read.
    """
    try:
        image, original = _decode(read(), 4 * size)
        return np.asarray(fit_to_square(image, size)), original
    except Exception as error:  # a decoder may raise anything on damaged bytes
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it is damaged, no image, or of an unknown kind" if unknown else str(error) or type(error).__name__
        raise UserError(f"cannot read the image {name}: {reason}; replace or remove it") from error


def _decode(data: bytes, least: int) -> tuple[Image.Image, tuple[int, int]]:
    """Decode an image to RGB, with sides of at least ``least`` pixels unless it is smaller.

    Returns:
        The image, and its size without reduction.
    """
    if not data:
        raise ValueError("it is empty")
    image = Image.open(io.BytesIO(data), formats=_formats())
    full = image.size
    image.draft(image.mode, (least, least))
    reduced = image.size != full
    if reduced and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8):
        full = full[::-1]
    rgb = to_rgb(image, data)
    rgb.info = image.info  # with its orientation
    ImageOps.exif_transpose(rgb, in_place=True)
    return rgb, full if reduced else rgb.size
