"""Loss, accuracy and learning rate of a run, epoch by epoch."""

from customresnet.analysis.page import Section

NAMES = {"train": "training", "val": "validation", "test": "test"}
COLORS = {"train": "tab:blue", "val": "tab:green", "test": "tab:orange"}


def curves(rows: list[dict[str, float]]) -> Section:
    """Curves of a run.

    Args:
        rows: The lines of its metrics.csv: ``epoch``, ``lr``, and ``loss`` and ``acc`` of each stage (``train/loss``).
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    stages = [stage for stage in NAMES if any(f"{stage}/acc" in row for row in rows)]
    figure = Figure(figsize=(8, 7), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.4))
    marker = "o" if len(rows) == 1 else ""
    for stage in stages:
        measured = [row for row in rows if f"{stage}/acc" in row]
        epochs = [row["epoch"] for row in measured]
        values = [row[f"{stage}/acc"] for row in measured]
        style = {"color": COLORS[stage], "marker": marker}
        loss.plot(epochs, [row[f"{stage}/loss"] for row in measured], label=NAMES[stage], **style)
        accuracy.plot(epochs, values, label=f"{NAMES[stage]}, last {values[-1]:.2%}", **style)
        accuracy.plot(epochs[-1], values[-1], "o", color=COLORS[stage])
    watched = stages[-1] if "val" not in stages else "val"
    measured = [row for row in rows if f"{watched}/acc" in row]
    best = max(measured, key=lambda row: row[f"{watched}/acc"])
    accuracy.plot(
        best["epoch"],
        best[f"{watched}/acc"],
        "*",
        markersize=12,
        color=COLORS[watched],
        label=f"best {NAMES[watched]}: {best[f'{watched}/acc']:.2%}, epoch {best['epoch']:.0f}",
    )
    rate.plot([row["epoch"] for row in rows], [row["lr"] for row in rows], color="tab:purple", marker=marker)
    loss.set_ylabel("loss (cross-entropy)")
    accuracy.set_ylabel("accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    rate.set(xlabel="epoch", ylabel="learning rate\n(last step)", ylim=(0, None))
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (loss, accuracy, rate):
        axes.grid(alpha=0.3)
    for axes in (loss, accuracy):
        axes.legend(frameon=False, fontsize="small")
    last = measured[-1]
    text = [
        f"The last {NAMES[watched]} accuracy, of epoch {last['epoch']:.0f}, is {last[f'{watched}/acc']:.2%}; "
        f"the best, of epoch {best['epoch']:.0f}, {best[f'{watched}/acc']:.2%}."
        + (" The figure reported is the last epoch's: nothing is chosen by the test set." if watched == "test" else "")
    ]
    if watched != "train":
        gap = last["train/acc"] - last[f"{watched}/acc"]
        text.append(
            f"Training accuracy, measured on augmented images while training, ends {abs(gap) * 100:.1f} points "
            f"{'above' if gap >= 0 else 'below'} it."
        )
    return Section(
        "curves", "Curves", {"Loss, accuracy and learning rate against epoch.": figure}, numbers=rows, text=text
    )
