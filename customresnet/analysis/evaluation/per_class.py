"""Accuracy of each class with its interval, precision, recall and F1."""

from typing import Any

import numpy as np

from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.runtime.formatting import percent
from customresnet.runtime.intervals import wilson


def per_class(predictions: Predictions) -> Section:
    """Metrics of each class. Its accuracy is its recall.

    Undefined metrics, of a class without images or never predicted, are None.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter
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
    figure = Figure(figsize=(8, 0.8 + 0.32 * len(known)), layout="constrained")
    axes = figure.subplots()
    values = np.array([row["accuracy"] for row in known])
    spans = np.array([[row["accuracy"] - row["low"], row["high"] - row["accuracy"]] for row in known]).T.clip(0)
    names = [row["class"] for row in known]
    axes.errorbar(values, range(len(known)), xerr=spans, fmt="o", color="tab:blue", capsize=3)
    axes.axvline(correct / total, color="tab:orange", linestyle="--", label=f"all classes: {percent(correct / total)}")
    axes.set_yticks(range(len(known)), names)
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
    counts = ("class", "images", "correct")
    table = [{key: value if key in counts else percent(value, 1) for key, value in row.items()} for row in rows]
    return Section(
        "per_class",
        "Accuracy of each class",
        {"Accuracy of each class with Wilson's 95% interval. The dashed line is the overall accuracy.": figure},
        numbers={"accuracy": correct / total, "correct": correct, "images": total, "classes": rows},
        text=text,
        table=table,
    )
