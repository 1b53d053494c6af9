"""Calibration: whether a network's confidence matches its accuracy.

Source: Guo et al., "On calibration of modern neural networks", 2017, https://arxiv.org/abs/1706.04599.
"""

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.runtime.formatting import percent

BINS = 15


def calibration(predictions: Predictions, bins: int = BINS) -> Section:
    """Reliability diagram and expected calibration error (ECE), with bins of equal width."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    confidence, correct = predictions.confidence.double(), predictions.correct.double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    index = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, bins - 1)
    counts = torch.bincount(index, minlength=bins)
    sums = torch.stack([torch.bincount(index, weights=w, minlength=bins) for w in (confidence, correct)])
    classes = len(predictions.classes)
    ece = float(multiclass_calibration_error(predictions.probabilities, predictions.labels, classes, bins, "l1"))
    rows = [
        {
            "from": float(edges[i]),
            "to": float(edges[i + 1]),
            "images": int(n),
            "confidence": float(sums[0, i] / n) if n else None,
            "accuracy": float(sums[1, i] / n) if n else None,
        }
        for i, n in enumerate(counts)
    ]
    starts, filled = edges[:-1].numpy(), (counts > 0).numpy()
    confidences, accuracies = (sums / counts).numpy()[:, filled]
    figure = Figure(figsize=(6, 6.5), layout="constrained")
    diagram, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    diagram.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfect calibration")
    style = {"width": 1 / bins, "align": "edge"}
    diagram.bar(starts[filled], accuracies, color="tab:blue", alpha=0.6, label="accuracy", **style)
    diagram.plot(confidences, accuracies, "o", color="tab:orange", label="mean confidence of the bin")
    histogram.bar(starts, counts.numpy(), color="0.6", **style)
    diagram.set_ylabel("accuracy")
    diagram.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    histogram.set(xlabel="confidence (probability of the predicted class)", ylabel="images")
    histogram.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.legend(frameon=False, loc="outside upper center", ncols=3, fontsize="small")
    mean, accuracy = float(confidence.mean()), float(correct.mean())
    verdict = "overconfident" if mean > accuracy else "underconfident"
    return Section(
        "calibration",
        "Calibration",
        {"Accuracy in each confidence bin. Below the diagonal, the network is overconfident.": figure},
        numbers={"ece": ece, "mean_confidence": mean, "accuracy": accuracy, "bins": rows},
        text=[
            f"The expected calibration error is {percent(ece)} ({bins} bins). Mean confidence is {percent(mean)} and "
            f"accuracy {percent(accuracy)}, so the network is {verdict} by {abs(mean - accuracy) * 100:.1f} points."
        ],
    )
