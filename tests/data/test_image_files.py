"""Image files of any format, depth and transparency become the RGB picture that they show."""

import io
import struct
import subprocess
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, TiffTags

from customresnet.data.sources.image_files import FORMATS, image_suffixes, is_hidden, read_square
from customresnet.runtime.errors import UserError

SIZE = 32
GRAY = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(2).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
PHOTO = Image.fromarray(COLOR[:6, :8]).resize((400, 300), Image.Resampling.BICUBIC)
"""A smooth image that a lossy format changes little."""


def square(data: bytes, size: int = SIZE) -> np.ndarray:
    return read_square("x", lambda: data, size)[0]


def saved(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def tiff(values: np.ndarray, photometric: int = 1, smin: float | None = None, smax: float | None = None) -> bytes:
    """An uncompressed gray TIFF of any data type, with the tags SMinSampleValue and SMaxSampleValue if given."""
    height, width = values.shape
    bits, kind = values.itemsize * 8, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height}
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {**tags, 279: values.nbytes, 339: kind}.items():
        directory.tagtype[tag], directory[tag] = TiffTags.LONG, value
    for tag, limit in ((340, smin), (341, smax)):
        if limit is not None:
            directory.tagtype[tag], directory[tag] = TiffTags.DOUBLE, limit
    return b"II*\0" + struct.pack("<I", 8) + directory.tobytes(8) + values.tobytes()  # corrects the strip's offset


def png(values: np.ndarray, depth: int, color: int, **chunks: bytes) -> bytes:
    """A PNG of packed rows, with any chunks before its pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.tobytes() for row in values)
    parts = {"IHDR": struct.pack(">IIBBBBB", SIZE, SIZE, depth, color, 0, 0, 0), **chunks}
    parts |= {"IDAT": zlib.compress(rows), "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name.encode(), content) for name, content in parts.items())


INTS = GRAY.astype(int)
ON_WHITE = (INTS * ALPHA + 255 * (255 - ALPHA.astype(int))) / 255


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        pytest.param(png((INTS * 257).astype(">u2"), 16, 0), 0, id="16-bit PNG"),
        pytest.param(png((INTS * 16).astype(">u2"), 16, 0), 1, id="16-bit PNG of 12-bit values"),
        pytest.param(png(INTS.astype(">u2"), 16, 0), 0, id="16-bit PNG of 8-bit values"),
        pytest.param(png((INTS * 4).astype(">u2"), 16, 0, sBIT=b"\x0a"), 1, id="PNG that declares 10 bits"),
        pytest.param(png((INTS * 257).astype(">u2"), 16, 0, sBIT=b"\x0c"), 0, id="PNG that declares 12 high bits"),
        pytest.param(tiff((INTS * 257).astype("<u2")), 0, id="16-bit TIFF"),
        pytest.param(tiff((INTS * 16).astype("<u2")), 1, id="16-bit TIFF of 12-bit values"),
        pytest.param(tiff((INTS * 16).astype("<u2"), smax=255 * 16), 0, id="TIFF that declares its white"),
        pytest.param(tiff(((255 - INTS) * 257).astype("<u2"), photometric=0), 0, id="TIFF whose white is 0"),
        pytest.param(tiff((INTS * 128).astype("<i2")), 1, id="signed 16-bit TIFF"),
        pytest.param(tiff(INTS.astype("<i4")), 0, id="32-bit TIFF of 8-bit values"),
        pytest.param(tiff((INTS * 257).astype("<i4")), 0, id="32-bit TIFF of 16-bit values"),
        pytest.param(tiff((INTS << 23).astype("<i4")), 1, id="signed 32-bit TIFF"),
        pytest.param(tiff((INTS << 24).astype("<u4")), 1, id="unsigned 32-bit TIFF"),
        pytest.param(tiff((INTS << 12).astype("<i4"), smax=255 << 12), 0, id="32-bit TIFF that declares its white"),
        pytest.param(tiff((INTS / 255).astype("<f4")), 0, id="float TIFF from 0 to 1"),
        pytest.param(tiff(INTS.astype("<f4")), 0, id="float TIFF from 0 to 255"),
        pytest.param(tiff((INTS / 127.5 - 1).astype("<f4"), smin=-1, smax=1), 0, id="float TIFF that declares -1 to 1"),
        pytest.param(b"P5 32 32 4095\n" + (INTS * 4095 // 255).astype(">u2").tobytes(), 1, id="PGM of 12 bits"),
        pytest.param(saved(Image.fromarray((INTS / 255).astype(np.float32)), "PPM"), 0, id="PFM"),
        pytest.param(saved(Image.fromarray((INTS * 16).astype(np.uint16)), "JPEG2000"), 1, id="JPEG 2000 of 12 bits"),
    ],
)
def test_gray_values_of_any_depth_are_scaled_to_8_bits(data, tolerance):
    difference = square(data).astype(int) - INTS[..., None]
    assert abs(difference).max() <= tolerance


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png((INTS * 8).astype(">u2"), 16, 0, sBIT=b"\x10"), id="PNG"),
        pytest.param(b"P5 32 32 65535\n" + (INTS * 8).astype(">u2").tobytes(), id="PGM"),
        pytest.param(tiff((INTS * 8).astype("<u2"), smax=65_535), id="TIFF"),
    ],
)
def test_a_dark_image_that_declares_16_bits_stays_dark(data):
    assert (square(data) == (INTS * 8 // 257)[..., None]).all()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.where(ALPHA > 250, np.nan, GRAY / 255).astype("<f4"), "it contains NaN or infinite values"),
        ((GRAY / 127.5 - 1).astype("<f4"), "its values, -1 to 1, have no known range"),
        ((GRAY / 25.5).astype("<f4"), "its values, 0 to 10, have no known range"),
        ((GRAY * 1e6).astype("<f4"), r"its values, .*, have no known range"),
        ((INTS << 12).astype("<i4"), r"its values, .*, have no known range"),
        ((INTS - 1000).astype("<i2"), "its values, -1000 to -745, have no known range"),
    ],
)
def test_values_without_a_known_range_are_refused(values, reason):
    with pytest.raises(UserError, match=f"cannot read the image x: {reason}"):
        square(tiff(values))


@pytest.mark.parametrize("factor", [257, 16, 1])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_color_values_of_any_depth_are_scaled_to_8_bits(factor, suffix):
    _, data = cv2.imencode(suffix, COLOR[..., ::-1].astype(np.uint16) * factor)
    assert abs(square(data.tobytes()).astype(int) - COLOR).max() <= (factor == 16)


def keyed(pixels: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Pixels with white wherever they equal ``key``."""
    same = pixels == key
    return np.where(same.all(axis=-1, keepdims=True) if pixels.ndim == 3 else same, 255, pixels)


PALETTE = Image.fromarray(COLOR).quantize(64)
PALETTE_ON_WHITE = np.where(np.asarray(PALETTE)[..., None] == 5, 255, np.asarray(PALETTE.convert("RGB")))
FOUR = np.packbits(np.unpackbits(GRAY[..., None], axis=-1)[..., :2].reshape(SIZE, -1), axis=-1)  # 2 bits each
RGBA = Image.fromarray(np.dstack([COLOR, ALPHA]))
RGBA_ON_WHITE = (COLOR * (ALPHA[..., None] / 255)) + (255 - ALPHA[..., None])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(saved(RGBA, "PNG"), RGBA_ON_WHITE, id="RGBA PNG"),
        pytest.param(saved(RGBA, "TIFF"), RGBA_ON_WHITE, id="RGBA TIFF"),
        pytest.param(saved(RGBA, "WEBP", lossless=True, exact=True), RGBA_ON_WHITE, id="RGBA WebP"),
        pytest.param(saved(RGBA, "TGA"), RGBA_ON_WHITE, id="RGBA TGA"),
        pytest.param(saved(Image.fromarray(np.dstack([GRAY, ALPHA])), "PNG"), ON_WHITE, id="LA PNG"),
        pytest.param(png((np.dstack([GRAY, ALPHA]) * 257.0).astype(">u2"), 16, 4), ON_WHITE, id="16-bit LA PNG"),
        pytest.param(png((np.dstack([GRAY, ALPHA]) * 16.0).astype(">u2"), 16, 4), ON_WHITE, id="12-bit LA PNG"),
        pytest.param(saved(PALETTE, "PNG", transparency=5), PALETTE_ON_WHITE, id="palette PNG"),
        pytest.param(saved(PALETTE, "PNG", transparency=b"\xff" * 5 + b"\0"), PALETTE_ON_WHITE, id="palette alphas"),
        pytest.param(saved(PALETTE, "GIF", transparency=5), PALETTE_ON_WHITE, id="GIF"),
        pytest.param(
            saved(Image.fromarray(COLOR), "PNG", transparency=tuple(COLOR[3, 3].tolist())),
            keyed(COLOR, COLOR[3, 3]),
            id="RGB PNG with a transparent color",
        ),
        pytest.param(
            png(
                (COLOR * 257.0).reshape(SIZE, -1).astype(">u2"),
                16,
                2,
                tRNS=(COLOR[3, 3] * 257.0).astype(">u2").tobytes(),
            ),
            keyed(COLOR, COLOR[3, 3]),
            id="16-bit RGB PNG with a transparent color",
        ),
        pytest.param(saved(Image.fromarray(GRAY), "PNG", transparency=7), keyed(GRAY, 7), id="gray PNG with one"),
        pytest.param(
            png((INTS * 257).astype(">u2"), 16, 0, tRNS=struct.pack(">H", 7 * 257)),
            keyed(GRAY, 7),
            id="16-bit gray PNG with one",
        ),
        pytest.param(
            png(FOUR, 2, 0, tRNS=struct.pack(">H", 1)), keyed(GRAY // 64 * 85, 85), id="2-bit gray PNG with one"
        ),
    ],
)
def test_transparent_pixels_are_composed_on_white(data, expected):
    expected = expected if expected.ndim == 3 else expected[..., None]
    assert abs(square(data) - expected).max() <= 1.5


def test_an_opaque_alpha_channel_changes_nothing():
    opaque = Image.fromarray(COLOR).convert("RGBA")
    assert (square(saved(opaque, "PNG")) == COLOR).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LAB"])
def test_other_modes_become_rgb(mode):
    picture = PHOTO.resize((SIZE, SIZE))
    expected = np.asarray(picture.convert(mode).convert("RGB")).astype(int)
    assert abs(square(saved(picture.convert(mode), "TIFF")) - expected).max() <= 2


def test_every_format_that_pillow_writes_and_decodes_itself_is_read():
    Image.init()
    formats = sorted({name for suffix, name in Image.registered_extensions().items() if suffix in image_suffixes()})
    assert (
        {"JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "TGA", "ICO"} <= set(formats) <= set(FORMATS)
    )
    picture = Image.fromarray(GRAY[:4, :4]).resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB")
    for name in set(formats) & Image.SAVE.keys() - {"IM"}:  # deprecated
        mode = {"BLP": "P", "MSP": "1", "XBM": "1"}.get(name, "RGB")
        expected = np.asarray(picture.convert(mode).convert("RGB")).astype(int)
        assert abs(square(saved(picture.convert(mode), name)) - expected).mean() < 5, name


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(file_format):
    frames = [PALETTE.convert("RGB"), Image.new("RGB", (SIZE, SIZE), "red")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = saved(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert (square(data) == np.asarray(frames[0])).all()


def test_a_file_never_starts_ghostscript(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    for name in ("EPS", "PDF"):
        with pytest.raises(UserError, match="cannot read the image x"):
            square(saved(Image.fromarray(COLOR), name))
    assert not {".eps", ".ps", ".pdf", ".wmf", ".emf", ".mpg", ".h5"} & image_suffixes()


@pytest.mark.parametrize("data", [b"", b"text", saved(PHOTO, "JPEG")[:500], saved(PHOTO, "PNG")[:-99], b"\0" * 5000])
def test_a_damaged_file_is_named_and_no_object_is_shown(data):
    with pytest.raises(UserError, match="cannot read the image x: ") as raised:
        square(data)
    assert "object at" not in str(raised.value)


@pytest.mark.parametrize("size", [(64, 48), (255, 255), (800, 100)])
def test_a_jpeg_that_is_not_8_times_larger_is_decoded_as_ever(size):
    data = saved(PHOTO.resize(size), "JPEG", quality=90)
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(whole.size)
    left, top = (whole.width - side) / 2, (whole.height - side) / 2
    box = (left, top, left + side, top + side)
    assert (square(data) == np.asarray(whole.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box))).all()


@pytest.mark.parametrize("file_format", ["JPEG", "MPO"])
def test_a_large_jpeg_is_decoded_small_and_looks_the_same(file_format):
    large = PHOTO.resize((1600, 1200), Image.Resampling.BICUBIC)
    data = saved(large, file_format, quality=95)
    pixels, size = read_square("x", lambda: data, SIZE)
    whole = read_square("x", lambda: saved(large, "PNG"), SIZE)[0]
    assert size == (1600, 1200)
    assert abs(pixels.astype(int) - whole).mean() < 1


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("width", [300, 1600])
def test_the_orientation_applies_to_pixels_and_size(file_format, width):
    photo = Image.new("RGB", (width, 200), "black")
    photo.paste("white", (0, 0, width // 2, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: left becomes up
    data = saved(photo, file_format, exif=exif)
    pixels, size = read_square("x", lambda: data, SIZE)
    assert size == (200, width)
    assert pixels[:12].min() > 245
    assert pixels[-12:].max() < 10


def test_hidden_names():
    hidden = (".git", ".DS_Store", "._photo.jpg", "__MACOSX", "@eaDir")
    assert all(map(is_hidden, hidden))
    assert not any(map(is_hidden, ("cat", "photo.jpg", "@work", "_")))
