"""Accuracy of each class with its interval, precision, recall and F1."""

from typing import Any

import numpy as np
from torchmetrics.functional.classification import multiclass_stat_scores

from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.runtime.intervals import wilson


def per_class(outputs: Predictions) -> Section:
    """How well each class is recognised, over all images.

    A class's accuracy is its recall: the share of its images that are named rightly. Figures that a class without
    images, or one that is never named, does not have are None.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    classes = outputs.classes
    # (classes, 5): true positives, false positives, true negatives, false negatives, images
    scores = multiclass_stat_scores(outputs.predicted, outputs.labels, len(classes), average="none").long()
    rows: list[dict[str, Any]] = []
    for name, (right, false, _, missed, images) in zip(classes, scores.tolist(), strict=True):
        low, high = wilson(right, images)
        rows.append(
            {
                "class": name,
                "images": images,
                "correct": right,
                "accuracy": right / images if images else None,
                "low": low if images else None,
                "high": high if images else None,
                "precision": right / (right + false) if right + false else None,
                "recall": right / images if images else None,
                "f1": 2 * right / (2 * right + false + missed) if right + false + missed else None,
            }
        )
    total, correct = len(outputs.labels), int(outputs.correct.sum())
    known = sorted((row for row in rows if row["images"]), key=lambda row: row["accuracy"], reverse=True)
    figure = Figure(figsize=(8, 0.8 + 0.32 * len(known)), layout="constrained")
    axes = figure.subplots()
    values = np.array([row["accuracy"] for row in known])
    spans = np.array([[row["accuracy"] - row["low"], row["high"] - row["accuracy"]] for row in known]).T.clip(0)
    names = [row["class"] for row in known]
    axes.errorbar(values, range(len(known)), xerr=spans, fmt="o", color="tab:blue", capsize=3)
    axes.axvline(correct / total, color="tab:orange", linestyle="--", label=f"all classes: {correct / total:.2%}")
    axes.set_yticks(range(len(known)), names)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, with its 95 % interval")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(alpha=0.3, axis="x")
    figure.legend(frameon=False, loc="outside upper right", fontsize="small")
    extremes = f"Best: {names[0]} ({values[0]:.1%}). Hardest: {names[-1]} ({values[-1]:.1%})."
    text = [extremes if values[0] > values[-1] else f"All classes alike: {values[0]:.1%}."]
    without = [row["class"] for row in rows if not row["images"]]
    if without:
        text.append(f"No test images of: {', '.join(without)}.")
    shown = [{k: percent(v) if k not in ("class", "images", "correct") else v for k, v in row.items()} for row in rows]
    return Section(
        "per_class",
        "Accuracy of each class",
        {"Accuracy of each class with Wilson's 95 % interval; the dashed line is the accuracy over all.": figure},
        numbers={"accuracy": correct / total, "correct": correct, "images": total, "classes": rows},
        text=text,
        table=shown,
    )


def percent(share: float | None) -> str:
    """``92.7 %``, or a dash for what is not known."""
    return "-" if share is None or np.isnan(share) else f"{100 * share:.1f} %"
