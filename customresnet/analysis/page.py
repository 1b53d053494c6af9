"""Section: text, figures and numbers on one topic. A page is a list of sections in one self-contained HTML file."""

import base64
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customresnet.runtime.files import as_csv, make_folder, write_atomically
from customresnet.runtime.formatting import UNKNOWN, one_line
from customresnet.runtime.screen import interactive

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#000000"
"""Color of text and axes in figures. The page replaces it by its text color, which adapts to dark mode."""
SMALL = 4000
"""Pictures of up to this many bytes as PNG, such as photos of 32x32 pixels, are stored without loss."""
BREAK = "\u200b"
"""A zero-width space, where a word may break."""
RIGHT_TO_LEFT = "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe]+"
"""A word in Hebrew, Arabic or a related script."""


@dataclass
class Section:
    """One section of a page.

    Attributes:
        name: Stem of its file names.
        title: Heading.
        figures: Figures by caption. Text and axes are black, except on a colored background; legends have no frame.
        numbers: The data behind the figures, JSON-serializable.
        text: Sentences above the figures.
        facts: Short texts by label.
        table: Rows with the same keys, for the page and a CSV file. None is an unknown value.
        group: A column of the table. The page shows one table for each of its values, unless they are all the same.
        missing: Why there is nothing to show.
    """

    name: str
    title: str
    figures: dict[str, "Figure"] = field(default_factory=dict)
    numbers: Any = None
    text: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    table: list[dict[str, Any]] = field(default_factory=list)
    group: str = ""
    missing: str = ""

    @property
    def figure(self) -> "Figure":
        """The first figure."""
        return next(iter(self.figures.values()))


def build_sections(builders: Sequence[Callable[[], Section]], description: str) -> list[Section]:
    """Build sections one by one, with a progress bar."""
    from tqdm import tqdm

    bar = tqdm(builders, description, leave=False, unit="section", disable=not interactive())
    return [build() for build in bar]


def write_page(folder: Path, title: str, sections: list[Section]) -> Path:
    """Write a self-contained index.html, and each section's figures and numbers as files next to it.

    Returns:
        The path of the page.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    make_folder(folder, "`output`")
    for section in sections:
        save(section, folder)
    environment = Environment(
        loader=PackageLoader("customresnet.analysis", "."),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "svg": as_svg,
        "cell": cell,
        "tables": tables,
        "text_columns": text_columns,
        "markup": markup,
    }
    page = environment.get_template("page.html").render(title=title, sections=sections)
    write_atomically(folder / "index.html", page)
    return folder / "index.html"


def save(section: Section, folder: Path) -> None:
    """Write a section's figures as PNG, numbers as JSON and table as CSV; files of an earlier page are removed."""
    for pattern in (f"{section.name}.*", f"{section.name}_[0-9].png"):
        for file in folder.glob(pattern):
            file.unlink()
    for number, figure in enumerate(section.figures.values(), start=1):
        suffix = f"_{number}" if len(section.figures) > 1 else ""
        figure.savefig(folder / f"{section.name}{suffix}.png", dpi=1.5 * figure.dpi, facecolor="white")
    if section.numbers is not None:
        write_atomically(folder / f"{section.name}.json", json.dumps(section.numbers, indent=1))
    if section.table:
        write_atomically(folder / f"{section.name}.csv", as_csv(section.table))


def as_svg(figure: "Figure", name: str) -> str:
    """A figure as inline SVG in the page's text color. ``name`` prefixes its identifiers and is unique on the page."""
    import matplotlib

    from customresnet.runtime.pictures import WHOLE

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.image_inline": True}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(f'<g id="{WHOLE}([^"]*)">', r"<g><title>\1</title>", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"data:image/png;base64,([\w+/=\s]+)", lambda found: _as_webp(base64.b64decode(found[1])), svg)
    return svg.replace("<svg ", '<svg fill="currentColor" role="img" ', 1)


def _as_webp(png: bytes) -> str:
    """A PNG as the URL of a smaller WebP, with loss if it is a larger photo: one that PNG hardly compresses."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        lossless = len(png) <= max(SMALL, image.width * image.height)
        image.convert("RGBA").save(buffer, "webp", lossless=lossless, quality=90)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def markup(text: str) -> str:
    """Escaped text as HTML: names from right to left do not reverse the words around them."""
    text = re.sub(f"{RIGHT_TO_LEFT}( {RIGHT_TO_LEFT})*", r"<bdi>\g<0></bdi>", one_line(text))
    return text.replace(BREAK, "<wbr>")


def tables(section: Section) -> dict[str, list[dict[str, Any]]]:
    """The section's table as one or several, by their headings, without columns that are empty."""
    filled = [
        name for name in section.table[0] if name != section.group and any(row[name] != "" for row in section.table)
    ]
    rows = [{name: row[name] for name in filled} for row in section.table]
    headings = [row.get(section.group, "") for row in section.table]
    if len(set(headings)) == 1:
        return {"": rows}
    return {
        heading: [row for row, own in zip(rows, headings, strict=True) if own == heading]
        for heading in dict.fromkeys(headings)
    }


def text_columns(table: list[dict[str, Any]]) -> set[str]:
    """The columns to align left: the first, and those in which a cell starts with a letter."""
    first = next(iter(table[0]))
    return {c for c in table[0] if c == first or any(isinstance(row[c], str) and row[c][:1].isalpha() for row in table)}


def cell(value: float | str | None) -> str:
    """The text of a value in a table. Words of more than 16 letters may break."""
    if isinstance(value, float):
        value = f"{value:.4g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:,}"
    text = UNKNOWN if value is None else str(value)
    return re.sub(r"\S{17,}", lambda word: re.sub(r"[^_/.-]{1,12}[_/.-]*", rf"\g<0>{BREAK}", word[0]), text)
