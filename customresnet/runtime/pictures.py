"""Draw many small images as one figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure


def image_grid(
    images: Sequence[np.ndarray | None] | np.ndarray,
    captions: Sequence[str],
    columns: int,
    lines: int = 1,
    width: float = 8,
) -> Figure:
    """Draw images ``(H, W, 3)`` uint8 in rows, without interpolation, each below a caption of up to ``lines`` lines.

    The place of an image that is None stays empty. ``width`` is that of the figure in inches.
    """
    rows = -(-len(images) // columns)
    cell = width / columns
    text = 0.16 * lines / cell  # a line of small text is about 0.16 inches high
    height = 1 + text
    figure = Figure(figsize=(width, rows * height * cell))
    # one Axes for all images: one per image would take seconds
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, columns), ylim=(rows * height, 0))
    axes.axis("off")
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = number % columns, number // columns * height + text
        box = (x + 0.04, x + 0.96, y + 0.95, y + 0.03)
        if image is not None:
            axes.imshow(image, extent=box, aspect="auto", interpolation="none")
        axes.text(x + 0.5, y - 0.01, caption, ha="center", va="bottom", fontsize="small", linespacing=1.1)
    return figure
