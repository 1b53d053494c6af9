"""Loss, accuracy and learning rate of a run against the epoch."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from customresnet.analysis.page import Section
from customresnet.runs.files import EpochMetrics
from customresnet.runtime.formatting import percent

NAMES = {"train": "training", "val": "validation", "test": "test"}
COLORS = {"train": "tab:blue", "val": "tab:green", "test": "tab:orange"}


def style_curves(accuracy: Axes, loss: Axes, rate: Axes) -> None:
    """Label the axes that show curves by epoch, of one run or of several."""
    accuracy.set_ylabel("accuracy")
    accuracy.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    rate.set(xlabel="epoch", ylabel="learning rate\n(last step)", ylim=(0, None))
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (accuracy, loss, rate):
        axes.grid(alpha=0.3)


def curves(rows: list[EpochMetrics]) -> Section:
    """Curves of a run, from the rows of its epochs.csv. Missing values leave gaps."""
    rows = [row for row in rows if "epoch" in row]
    stages = [stage for stage in NAMES if any(f"{stage}/acc" in row for row in rows)]
    if not stages:
        return Section("curves", "Curves", missing="there is no epochs.csv with accuracies beside the checkpoint")
    figure = Figure(figsize=(8, 7), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.4))
    marker = "o" if len(rows) == 1 else ""
    for stage in stages:
        measured = [row for row in rows if f"{stage}/acc" in row]
        epochs = [row["epoch"] for row in measured]
        values = [row[f"{stage}/acc"] for row in measured]
        style = {"color": COLORS[stage], "marker": marker}
        loss.plot(epochs, [row.get(f"{stage}/loss", math.nan) for row in measured], label=NAMES[stage], **style)
        accuracy.plot(epochs, values, label=f"{NAMES[stage]}, last {percent(values[-1])}", **style)
        accuracy.plot(epochs[-1], values[-1], "o", color=COLORS[stage])
    watched = stages[-1] if "val" not in stages else "val"
    column = f"{watched}/acc"
    measured = [row for row in rows if column in row]
    best = max(measured, key=lambda row: row[column])
    label = f"best {NAMES[watched]}: {percent(best[column])}, epoch {best['epoch']:.0f}"
    accuracy.plot(best["epoch"], best[column], "*", markersize=12, color=COLORS[watched], label=label)
    rates = [row.get("lr", math.nan) for row in rows]
    rate.plot([row["epoch"] for row in rows], rates, color="tab:purple", marker=marker)
    loss.set_ylabel("loss (cross-entropy)")
    style_curves(accuracy, loss, rate)
    for axes in (loss, accuracy):
        axes.legend(frameon=False, fontsize="small")
    last = measured[-1]
    text = [
        f"The {NAMES[watched]} accuracy is {percent(last[column])} after the last epoch ({last['epoch']:.0f}) and "
        f"{percent(best[column])} after the best one ({best['epoch']:.0f})."
        + (" The last epoch is reported: no epoch is selected on the test set." if watched == "test" else "")
    ]
    if watched != "train" and "train/acc" in last:
        gap = last["train/acc"] - last[column]
        text.append(
            "The training accuracy, measured on augmented images during training, ends "
            f"{abs(gap) * 100:.1f} points {'higher' if gap >= 0 else 'lower'}."
        )
    return Section("curves", "Curves", {"Loss, accuracy and learning rate by epoch.": figure}, numbers=rows, text=text)
