"""Section: what one look at a network, a run or a data set yields. Page: several of them in one self-contained file."""

import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customresnet.runtime.files import as_csv, make_folder, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#000000"
"""The colour of text and axes; on the page it becomes the page's own, so that figures follow light and dark."""


@dataclass
class Section:
    """One view.

    Attributes:
        name: Stem of its files' names.
        title: Its heading.
        figures: Pictures by caption. Their text and axes are black, their legends without a frame, and whatever lies
            on coloured ground is of any other colour than black.
        numbers: What the figures show, ready for JSON.
        text: Sentences to read first.
        facts: A few words each, by their label.
        table: Rows with the same keys; the page shows them as a table, beside it lies a CSV file.
        missing: Why this view cannot be shown; everything else is then empty.
    """

    name: str
    title: str
    figures: dict[str, "Figure"] = field(default_factory=dict)
    numbers: Any = None
    text: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    table: list[dict[str, Any]] = field(default_factory=list)
    missing: str = ""

    @property
    def figure(self) -> "Figure":
        """The first figure."""
        return next(iter(self.figures.values()))


def write_page(folder: Path, title: str, views: Iterable[Section]) -> Path:
    """Write index.html with everything inside it, and each view's pictures and numbers as files beside it.

    Args:
        folder: Where to write; it is made.
        title: The page's heading.
        views: What it shows, in this order.

    Returns:
        The path of the page.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    make_folder(folder, "--output")
    views = list(views)
    for view in views:
        save(view, folder)
    environment = Environment(
        loader=PackageLoader("customresnet.analysis", "."),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = as_svg
    environment.filters["cell"] = _cell
    environment.filters["columns_of_words"] = columns_of_words
    page = environment.get_template("page.html").render(title=title, views=views)
    write_atomically(folder / "index.html", page)
    return folder / "index.html"


def save(view: Section, folder: Path) -> None:
    """Write a view's pictures as PNG, numbers as JSON and table as CSV, in place of those of an earlier page."""
    for old in (f"{view.name}.*", f"{view.name}_[0-9].png"):
        for file in folder.glob(old):
            file.unlink()
    for number, figure in enumerate(view.figures.values(), start=1):
        suffix = f"_{number}" if len(view.figures) > 1 else ""
        figure.savefig(folder / f"{view.name}{suffix}.png", dpi=150, facecolor="white")
    if view.numbers is not None:
        write_atomically(folder / f"{view.name}.json", json.dumps(view.numbers, indent=1))
    if view.table:
        write_atomically(folder / f"{view.name}.csv", as_csv(view.table))


def as_svg(figure: "Figure", name: str) -> str:
    """A figure as inline SVG whose black ink takes the colour of the page's text.

    Args:
        figure: The figure.
        name: Sets its identifiers apart from those of the page's other figures.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.image_inline": True}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", '<svg fill="currentColor" role="img" ', 1)


def columns_of_words(table: list[dict[str, Any]]) -> set[str]:
    """The columns that are read, not compared as numbers: the first, and those where a cell begins with a letter."""
    first = next(iter(table[0]))
    return {c for c in table[0] if c == first or any(isinstance(row[c], str) and row[c][:1].isalpha() for row in table)}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
