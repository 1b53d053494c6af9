"""Figures with names that people chose: of classes, files and runs, of any length and in any script."""

import logging
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import text_to_path

from customresnet.runtime.formatting import one_line

WHOLE = "whole: "
"""A text's gid starts with this if the text stands for a longer one, which follows. A page shows that on hover."""
MOST_PIXELS = 30_000
"""Height of a grid of images: matplotlib draws at most 65,535 pixels."""
PREFERRED = re.compile("cjk|sans|hei|gothic", re.IGNORECASE)


def image_grid(
    images: Sequence[np.ndarray | None] | np.ndarray,
    captions: Sequence[str],
    columns: int,
    lines: int = 1,
    width: float = 8,
    classes: Sequence[str] = (),
) -> Figure:
    """Draw images ``(H, W, 3)`` uint8 in rows, without interpolation, each below a caption of up to ``lines`` lines.

    The place of an image that is None stays empty. ``width`` is that of the figure in inches. ``classes`` are the class
    names that captions contain; see ``drawable``.
    """
    rows = -(-len(images) // columns)
    cell = width / columns
    text = 0.16 * lines / cell  # a line of small text is about 0.16 inches high
    height = 1 + text
    figure = Figure(figsize=(width, rows * height * cell))
    figure.dpi = min(figure.dpi, MOST_PIXELS / figure.get_figheight())
    # one Axes for all images: one per image would take seconds
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, columns), ylim=(rows * height, 0))
    axes.axis("off")
    names = [one_line(name) for name in classes]
    style = text_style(captions) | {"fontsize": "small", "linespacing": 1.1, "ha": "center", "va": "bottom"}
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = number % columns, number // columns * height + text
        box = (x + 0.04, x + 0.96, y + 0.95, y + 0.03)
        if image is not None:
            axes.imshow(image, extent=box, aspect="auto", interpolation="none")
        if caption:
            shown = "\n".join(_fitted(drawable(line, classes), 0.92 * cell, names) for line in caption.split("\n"))
            axes.text(x + 0.5, y - 0.01, shown, gid=_whole(caption, shown), **style)
    return figure


def _fitted(line: str, inches: float, names: Sequence[str]) -> str:
    """A line of a caption: the arrow before a name and the percentage behind it are never cut."""
    parts = re.fullmatch(r"(→ )?(.*?)((?: [\d.]+%)?(?: ✗)?)", line)
    start, name, end = parts.groups("") if parts else ("", line, "")
    return shorten(name, inches, "small", names, start, end)


def name_ticks(axis: Axis, names: Sequence[str], inches: float, classes: Sequence[str], **style: Any) -> None:
    """Label the ticks 0, 1, 2, ... of an axis with names of ``classes``, each cut to a length in inches."""
    lines = [one_line(name) for name in classes]
    shown = [shorten(drawable(name, classes), inches, names=lines) for name in names]
    axis.set_ticks(range(len(names)), shown, **text_style(names), **style)
    for tick, name, label in zip(axis.get_major_ticks(), names, shown, strict=True):
        tick.label1.set_gid(_whole(name, label))


def _whole(text: str, shown: str) -> str | None:
    return None if text == shown else WHOLE + one_line(text)


def drawable(text: str, names: Sequence[str] = (), kind: str = "class") -> str:
    """A text in one line that the installed fonts can draw.

    A name of a class, or of another ``kind``, that they cannot draw becomes its number, ``class 3``, and any other
    character ``?``.
    """
    for name, number in _numbered(tuple(names), kind).items():
        text = text.replace(name, number)
    text = one_line(text)
    missing = _fonts(frozenset(text))[1]
    return "".join(("?" if _is_visible(c) else "") if c in missing else c for c in text)


@cache
def _numbered(names: tuple[str, ...], kind: str) -> dict[str, str]:
    """The names that no installed font can draw, the longest first, and what figures show instead."""
    missing = set(filter(_is_visible, _fonts(frozenset("".join(names)))[1]))
    numbered = {one_line(name): f"{kind} {number}" for number, name in enumerate(names) if missing & set(name)}
    if numbered:
        print(
            f"warning: figures show numbers instead of {len(numbered)} {kind} names, because no installed font has the "
            f"characters {''.join(sorted(missing))[:20]}; install one that has, such as Noto Sans CJK",
            file=sys.stderr,
        )
    return dict(sorted(numbered.items(), key=lambda entry: -len(entry[0])))


def numbered(name: str, classes: Sequence[str]) -> dict[str, str]:
    """A column that tells what figures show instead of a name, for tables of classes; empty if they show names."""
    return {"in figures": drawable(name, classes)} if _numbered(tuple(classes), "class") else {}


def _is_visible(character: str) -> bool:
    """Whether a character is drawn by itself: no control character, joiner or accent."""
    return unicodedata.category(character)[0] not in "CM"


def text_style(texts: Iterable[str]) -> dict[str, Any]:
    """Properties of matplotlib texts with such names: no formulas, and fonts that have all their glyphs."""
    return {"parse_math": False, "fontfamily": _fonts(frozenset("".join(texts)))[0]}


@cache
def _fonts(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """The font families that draw these characters, and the characters that no installed font has."""
    families = list(matplotlib.rcParams["font.family"])
    missing = {c for c in characters if not c.isspace()} - _glyphs(findfont(FontProperties()))
    upright = [font for font in fontManager.ttflist if font.style == "normal" and font.weight in (400, 500)]
    files = {font.name: font.fname for font in upright if "Last Resort" not in font.name}  # which has boxes
    for family in sorted(files, key=lambda name: (not PREFERRED.search(name), name)) if missing else ():
        if found := missing & _glyphs(files[family]):
            logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it would warn of a medium weight
            families.append(family)
            missing -= found
    return families, frozenset(missing)


@cache
def _glyphs(font: str) -> frozenset[str]:
    """The characters of a font file; none if its glyphs are bitmaps, as those of color emoji."""
    try:
        face = FT2Font(font)
        return frozenset(map(chr, face.get_charmap())) if face.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


@cache
def text_width(text: str, fontsize: float | str = "medium") -> float:
    """The width of a text in inches."""
    font = FontProperties(family=_fonts(frozenset(text))[0], size=fontsize)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def shorten(
    name: str,
    inches: float,
    fontsize: float | str = "medium",
    names: Sequence[str] = (),
    start: str = "",
    end: str = "",
) -> str:
    """``start``, a name and ``end``, in which the name is cut to fit: first what it shares with all ``names``."""
    head, tail = _shared(tuple(names)) if name in names else (0, 0)
    shown, dropped = name, 0
    while len(name) - dropped > 2 and (excess := text_width(start + shown + end, fontsize) / inches) > 1:
        dropped += max(1, int(len(shown) * (1 - 1 / excess)))
        shown = _without(name, dropped, head, tail)
    return start + shown + end


@cache
def _shared(names: tuple[str, ...]) -> tuple[int, int]:
    """The lengths of the start and of the end that all of several names share."""
    if len(names) < 2:
        return 0, 0
    head = _common(names)
    return head, _common([name[head:][::-1] for name in names])


def _common(names: Sequence[str]) -> int:
    """The length of the start that all names share."""
    pairs = zip(min(names), max(names), strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), len(min(names)))


def _without(name: str, dropped: int, head: int, tail: int) -> str:
    """A name without characters of its head, its tail or both, and if these do not suffice, of the middle between."""
    from_head = min(dropped, head) if head >= tail else min(max(0, dropped - tail), head)
    from_tail = min(dropped - from_head, tail)
    end = len(name) - tail
    middle = name[head:end]
    kept = max(1, len(middle) - (dropped - from_head - from_tail))
    if kept < len(middle):
        middle = f"{middle[: kept - kept // 2]}…{middle[len(middle) - kept // 2 :]}"
    first, last = name[: head - from_head], name[end + from_tail :]
    return first + "…" * bool(from_head) + middle + "…" * bool(from_tail) + last
