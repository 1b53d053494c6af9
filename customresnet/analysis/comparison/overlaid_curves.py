"""Accuracy, loss and learning rate of several runs in one figure."""

from customresnet.analysis.evaluation.curves import NAMES
from customresnet.analysis.page import Section
from customresnet.runs.record import RunRecord

DASHES = ("-", "--", ":", "-.")
LEGEND = 90
"""Characters in a row of the legend."""


def overlaid_curves(compared: list[RunRecord]) -> Section:
    """The curves of all runs that recorded any."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    drawn = [run for run in compared if run.series(f"{run.watched}/acc")[0] or run.series("train/loss")[0]]
    if not drawn:
        return Section("curves", "Curves", missing="no run has an epochs.csv with accuracy or training loss")
    # a dollar sign would start a formula
    labels = [run.name.replace("$", r"\$") + f", {NAMES['val']}" * (run.watched == "val") for run in drawn]
    beside = max(1, min(4, LEGEND // (max(map(len, labels)) + 6)))
    figure = Figure(figsize=(8, 7.4 + 0.19 * -(-len(drawn) // beside)), layout="constrained")
    accuracy, loss, rate = figure.subplots(3, 1, sharex=True, height_ratios=(4, 3, 1.3))
    for number, run in enumerate(drawn):
        style = {"color": f"C{number % 10}", "linestyle": DASHES[number // 10 % len(DASHES)]}
        for axes, column in ((accuracy, f"{run.watched}/acc"), (loss, "train/loss"), (rate, "lr")):
            epochs, values = run.series(column)
            axes.plot(epochs, values, marker="o" if len(epochs) == 1 else "", **style)
    accuracy.set_ylabel("accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    loss.set(ylabel="training loss", ylim=(0, None))
    rate.set(xlabel="epoch", ylabel="learning rate\n(last step)", ylim=(0, None))
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (accuracy, loss, rate):
        axes.grid(alpha=0.3)
    figure.legend(
        accuracy.get_lines(), labels, loc="outside lower center", ncols=beside, frameon=False, fontsize="small"
    )
    without = [run.name for run in compared if run not in drawn]
    return Section(
        "curves",
        "Curves",
        {"Accuracy after each epoch (on the test images, unless marked validation), training loss and LR.": figure},
        numbers={run.name: run.metrics for run in drawn},
        text=[f"Without curves: {', '.join(without)}."] if without else [],
    )
