"""Convert the pixels of any image file to RGB of 8 bits."""

import numpy as np
from PIL import Image, ImageFile

BITS, PHOTOMETRIC, SAMPLE_FORMAT, S_MIN, S_MAX = 258, 262, 339, 340, 341
"""Tags of TIFF."""


def to_rgb(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Decode an opened image, the content of a file, to RGB; transparent pixels are composed on white.

    Raises:
        ValueError: Its values have no known range.
    """
    encoding = str(image.tile)
    image.load()
    bits = _significant_bits(image, data)
    if image.mode[0] in "IF":
        return _from_values(image, bits).convert("RGB")
    picture: Image.Image = image
    transparent = image.info.get("transparency")
    if image.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA") and ";16" in encoding:
        # Pillow keeps the high byte of each value
        if bits != 16 and np.asarray(image)[..., :3].max() < 16:
            picture = _from_deep_color(image, data, bits)
        elif transparent:
            image.info["transparency"] = tuple(value >> 8 for value in transparent)
    elif transparent and image.mode == "L":  # Pillow scales the pixels, but not the transparent value
        image.info["transparency"] = transparent * (85 if "L;2" in encoding else 17 if "L;4" in encoding else 1)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def _significant_bits(image: ImageFile.ImageFile, data: bytes) -> int | None:
    """The number of bits that an image's values use, if its file says so and it is not that of its data type."""
    if image.format == "PPM" and image.mode == "I":
        return 16  # Pillow has scaled the values
    if image.format == "PNG" and (start := data.find(b"sBIT", 0, data.find(b"IDAT"))) > 0:
        return data[start + 4]
    bits = _tag(image, BITS)
    return int(bits) if bits and 8 < bits < 16 else None


def _tag(image: ImageFile.ImageFile, number: int) -> float | None:
    """The value of a TIFF's tag, that of its first sample if there are several."""
    value = getattr(image, "tag_v2", {}).get(number)
    return float(value[0] if isinstance(value, tuple) else value) if value is not None else None


def _from_values(image: ImageFile.ImageFile, bits: int | None) -> Image.Image:
    """An 8-bit gray image from one of integers of more than 8 bits or floats.

    Black and white are what the file says; else 0 and the least of 1, 2^8 - 1, 2^12 - 1 and the type's maximum that
    no value exceeds.
    """
    values = np.asarray(image)
    if image.mode == "I" and _tag(image, BITS) == 32 and _tag(image, SAMPLE_FORMAT) in (None, 1):
        values = values.view(np.uint32)
    if not np.isfinite(values).all():
        raise ValueError("it contains NaN or infinite values")
    black, white = _tag(image, S_MIN), _tag(image, S_MAX)
    low, high = float(values.min()), float(values.max())
    if white is None or white <= (black or 0):
        black, white = None, _white(image, high, bits)
    if white is None or (black is None and low < 0):
        raise ValueError(f"its values, {low:g} to {high:g}, have no known range; convert it to 8 bits")
    black = black or 0.0
    if (black, white) == (0, 65_535) and values.dtype.kind != "f":
        gray = values // 257
    else:
        gray = ((values.astype(np.float32) - black) * (255 / (white - black))).round().clip(0, 255)
    if _tag(image, PHOTOMETRIC) == 0:
        gray = 255 - gray
    if "transparency" in image.info:
        gray[values == image.info["transparency"]] = 255
    return Image.fromarray(gray.astype(np.uint8))


def _white(image: ImageFile.ImageFile, high: float, bits: int | None) -> float | None:
    """The value of white in an image whose largest value is ``high``; None if the choice would be a guess."""
    is_float = image.mode == "F"
    signed = _tag(image, SAMPLE_FORMAT) == 2
    largest = 65_535.0 if is_float else 2.0 ** ((_tag(image, BITS) or 16) - signed) - 1
    usual = [2.0**bits - 1] if bits else [1.0, 255.0, 4_095.0, min(65_535.0, largest)]
    white = next((value for value in (*usual, largest) if high <= value), None)
    if white is None or (white > (1 if is_float else 65_535) and high < white / 16):
        return None
    return white


def _from_deep_color(image: ImageFile.ImageFile, data: bytes, bits: int | None) -> Image.Image:
    """A color image of 8 bits from one of 16 bits whose values use 12 bits at most."""
    import cv2

    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("OpenCV cannot decode it")
    scaled = []
    for part in (values[..., 2::-1], values[..., 3:]):  # color and, if there is one, alpha
        white = _white(image, float(part.max(initial=0)), bits) or 65_535
        scaled.append((part * (255 / white)).round().astype(np.uint8))
    return Image.fromarray(np.concatenate(scaled, axis=2))
