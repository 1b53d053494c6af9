"""Accuracy of each class with its interval, precision, recall and F1; and which classes the network confuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.runtime.formatting import percent
from customresnet.runtime.intervals import wilson
from customresnet.runtime.pictures import name_ticks, numbered

LARGEST = 5
"""Confusions that are listed in words."""
MOST_BARS = 40
"""With more classes, the figure shows those with the highest and the lowest accuracy."""
MOST_CELLS = 30
"""With more classes, the confusion matrix has numbers for the most confused ones only."""
CONFUSED = 20


def per_class(predictions: Predictions) -> Section:
    """Metrics of each class. Its accuracy is its recall.

    Undefined metrics, of a class without images or never predicted, are None.
    """
    from torchmetrics.functional.classification import multiclass_stat_scores

    classes = predictions.classes
    # (classes, 5): true positives, false positives, true negatives, false negatives, images
    scores = multiclass_stat_scores(predictions.predicted, predictions.labels, len(classes), average="none").long()
    rows: list[dict[str, Any]] = []
    for name, (correct, false, _, missed, images) in zip(classes, scores.tolist(), strict=True):
        low, high = wilson(correct, images)
        rows.append(
            {
                "class": name,
                "images": images,
                "correct": correct,
                "accuracy": correct / images if images else None,
                "low": low if images else None,
                "high": high if images else None,
                "precision": correct / (correct + false) if correct + false else None,
                "recall": correct / images if images else None,
                "f1": 2 * correct / (2 * correct + false + missed) if correct + false + missed else None,
            }
        )
    total, correct = len(predictions.labels), int(predictions.correct.sum())
    known = sorted((row for row in rows if row["images"]), key=lambda row: row["accuracy"], reverse=True)
    many = len(known) > MOST_BARS
    drawn = [*known[: MOST_BARS // 2], *known[-MOST_BARS // 2 :]] if many else known
    figure = Figure(figsize=(8, 0.8 + 0.32 * len(drawn)), layout="constrained")
    axes = figure.subplots()
    values = np.array([row["accuracy"] for row in drawn])
    spans = np.array([[row["accuracy"] - row["low"], row["high"] - row["accuracy"]] for row in drawn]).T.clip(0)
    names = [row["class"] for row in drawn]
    axes.errorbar(values, range(len(drawn)), xerr=spans, fmt="o", color="tab:blue", capsize=3)
    axes.axvline(correct / total, color="tab:orange", linestyle="--", label=f"all classes: {percent(correct / total)}")
    name_ticks(axes.yaxis, names, 2.2, classes)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, with its 95% interval")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(alpha=0.3, axis="x")
    figure.legend(frameon=False, loc="outside upper right", fontsize="small")
    highest, lowest = percent(values[0], 1), percent(values[-1], 1)
    extremes = f"Highest accuracy: {names[0]} ({highest}). Lowest: {names[-1]} ({lowest})."
    text = [extremes if values[0] > values[-1] else f"Every class has an accuracy of {highest}."]
    without = [row["class"] for row in rows if not row["images"]]
    if without:
        text.append(f"Classes without test images: {', '.join(without)}.")
    which = f"the {MOST_BARS // 2} classes with the highest and the {MOST_BARS // 2} with the lowest accuracy"
    caption = f"Accuracy of {which if many else 'each class'} with Wilson's 95% interval."
    counts = ("class", "images", "correct")
    table = [
        {"class": row["class"]}
        | numbered(row["class"], classes)
        | {key: value if key in counts else percent(value, 1) for key, value in row.items()}
        for row in rows
    ]
    return Section(
        "per_class",
        "Accuracy of each class",
        {f"{caption} The dashed line is the overall accuracy.": figure},
        numbers={"accuracy": correct / total, "correct": correct, "images": total, "classes": rows},
        text=text,
        table=table,
    )


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
        f"{c['true']} predicted as {c['predicted']}: {c['count']} image{'s' * (c['count'] > 1)} "
        f"({percent(c['share'], 1)} of all {c['true']})"
        for c in largest
    ]
    chosen, which = np.arange(len(classes)), ""
    if len(classes) > MOST_CELLS:
        chosen = _most_confused(wrong)
        which = f" The {len(chosen)} most confused of {len(classes):,} classes."
    block = np.ix_(chosen, chosen)
    figures = {
        f"Percentage of each true class (row) predicted as each class (column).{which}": _matrix(
            100 * shares[block], chosen, classes, lambda value: f"{value:.1f}" if value >= 0.05 else ""
        ),
        f"Number of images.{which}": _matrix(
            counts[block], chosen, classes, lambda value: f"{value:.0f}" if value else ""
        ),
    }
    if which:
        caption = (
            f"All {len(classes):,} classes in the order of the table above: the percentage of each true class (row)."
        )
        figures[caption] = _picture(shares)
    return Section(
        "confusion",
        "Confusion matrix",
        figures,
        numbers={"classes": list(classes), "counts": counts.tolist(), "shares": shares.tolist(), "largest": largest},
        text=[f"Most frequent mistakes: {'; '.join(sentences)}." if sentences else "There are no mistakes."],
    )


def _most_confused(wrong: np.ndarray) -> np.ndarray:
    """The classes of the most frequent mistakes, in order: ``wrong`` are the counts ``[true, predicted]``."""
    chosen: list[int] = []
    for index in np.argsort(-(wrong + wrong.T), axis=None, kind="stable"):
        pair = [int(label) for label in divmod(int(index), len(wrong)) if label not in chosen]
        if len(chosen) + len(pair) > CONFUSED:
            break
        chosen += pair
    return np.sort(chosen)


def _picture(shares: np.ndarray) -> Figure:
    """All classes, without names and numbers. The square root of a percentage gives its color."""
    figure = Figure(figsize=(8, 6.4), layout="compressed")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Oranges", norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="none")
    figure.colorbar(image, format=PercentFormatter(1.0, decimals=0))
    axes.set(xlabel="predicted class, by number", ylabel="true class, by number")
    return figure


def _matrix(values: np.ndarray, chosen: np.ndarray, classes: tuple[str, ...], label: Callable[[float], str]) -> Figure:
    """A part of the matrix: the rows and columns of the ``chosen`` classes."""
    size = max(4.5, 1.6 + (0.58 if len(chosen) <= 12 else 0.46) * len(chosen))
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
    names = [classes[label] for label in chosen]
    name_ticks(axes.xaxis, names, 1.6, classes, rotation=45, ha="right")
    name_ticks(axes.yaxis, names, 2, classes)
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure
