"""The confusion matrix: which classes the network confuses."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.runtime.formatting import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 5


def confusion(predictions: Predictions) -> Section:
    """Counts ``[true, predicted]``, fractions of each true class, and the most frequent confusions in words."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    classes = predictions.classes
    counts = multiclass_confusion_matrix(predictions.predicted, predictions.labels, len(classes)).numpy()
    images = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, images, out=np.zeros(counts.shape), where=images > 0)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:LARGEST]
    largest: list[dict[str, Any]] = [
        {"true": classes[t], "predicted": classes[p], "count": int(wrong[t, p]), "share": float(shares[t, p])}
        for t, p in (divmod(int(i), len(classes)) for i in order)
        if wrong[t, p]
    ]
    sentences = [
        f"{c['true']} predicted as {c['predicted']}: {c['count']} images ({percent(c['share'], 1)} of all {c['true']})"
        for c in largest
    ]
    return Section(
        "confusion",
        "Confusion matrix",
        {
            "Percentage of each true class (row) predicted as each class (column).": _draw(
                100 * shares, classes, lambda value: f"{value:.1f}" if value >= 0.05 else ""
            ),
            "Number of images.": _draw(counts, classes, lambda value: f"{value:.0f}" if value else ""),
        },
        numbers={"classes": list(classes), "counts": counts.tolist(), "shares": shares.tolist(), "largest": largest},
        text=[f"Most frequent mistakes: {'; '.join(sentences)}." if sentences else "There are no mistakes."],
    )


def _draw(values: np.ndarray, classes: tuple[str, ...], label: Callable[[float], str]) -> "Figure":
    from matplotlib.figure import Figure

    size = max(4.5, 1.6 + 0.58 * len(classes))
    figure = Figure(figsize=(min(size + 0.6, 14), min(size, 13.4)), layout="constrained")
    axes = figure.subplots()
    off_diagonal = values - np.diag(np.diag(values))
    # the color scale ignores the diagonal, which would dominate it
    axes.imshow(off_diagonal, cmap="Oranges", vmin=0, vmax=max(1e-9, off_diagonal.max()))
    for t, row in enumerate(values):
        for p, value in enumerate(row):
            dark = t != p and value > 0.6 * off_diagonal.max()
            weight = "bold" if t == p else "normal"
            color = "#ffffff" if dark else "#1b1b1b"
            axes.text(p, t, label(value), ha="center", va="center", fontsize="small", color=color, fontweight=weight)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure
