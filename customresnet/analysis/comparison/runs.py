"""The compared runs: a table of what they recorded, and their curves in one figure."""

from typing import Any

from matplotlib.figure import Figure

from customresnet.analysis.comparison.evaluations import by_data_set
from customresnet.analysis.evaluation.curves import NAMES, style_curves
from customresnet.analysis.page import Section
from customresnet.runs.record import RunRecord
from customresnet.runtime.formatting import UNKNOWN, duration, learning_rate, percent
from customresnet.runtime.pictures import drawable, shorten, text_style, text_width

WIDTH = 120
"""Characters in a line of text."""
DISPENSABLE = ("recipe", "parameters", "best training", "LRMIN", "time", "LRMAX", "network", "epochs")
"""Columns that ``text_table`` drops, in this order, until the table fits."""
DASHES = ("-", "--", ":", "-.")


def run_table(compared: list[RunRecord]) -> Section:
    """What each run recorded about itself, with a table for each data set."""
    runs = [(data, run) for data, group in by_data_set(compared).items() for run in group]
    return Section(
        "runs",
        "Runs",
        numbers=[_numbers(run) | {"data": data} for data, run in runs],
        text=[
            "The runs recorded these accuracies and times; intervals are Wilson's 95% intervals. LRMAX and "
            "LRMIN were found by the LR range test, or given."
        ],
        table=[_row(run) | {"data": data} for data, run in runs],
        group="data",
    )


def _numbers(run: RunRecord) -> dict[str, Any]:
    evaluation = run.evaluation
    (lr_max, origin_max), (lr_min, origin_min) = run.bound("lr_max"), run.bound("lr_min")
    return {
        "run": run.name,
        "recipe": run.recipe,
        "network": run.network,
        "parameters": run.parameters,
        "lr_max": lr_max,
        "lr_max_origin": origin_max,
        "lr_min": lr_min,
        "lr_min_origin": origin_min,
        "epochs": run.epochs,
        "planned_epochs": run.planned,
        "best_training_accuracy": run.best_training,
        "stage": evaluation.stage,
        "accuracy": evaluation.accuracy,
        "correct": evaluation.correct,
        "images": evaluation.images,
        "interval": evaluation.interval,
        "seconds": run.seconds,
        "remarks": run.remarks,
    }


def _row(run: RunRecord) -> dict[str, Any]:
    evaluation, interval = run.evaluation, run.evaluation.interval
    stage = f"{NAMES[evaluation.stage]} " if evaluation.stage == "val" else ""
    bounds = [
        f"{learning_rate(rate)} {origin}" if rate else UNKNOWN
        for rate, origin in (run.bound("lr_max"), run.bound("lr_min"))
    ]
    return {
        "run": run.name,
        "test accuracy": stage + percent(evaluation.accuracy),
        "95 % interval": f"{percent(interval[0])} to {percent(interval[1])}" if interval else UNKNOWN,
        "best training": percent(run.best_training),
        "epochs": f"{run.epochs} of {run.planned}" if run.planned else str(run.epochs),
        "time": UNKNOWN if run.seconds is None else duration(run.seconds),
        "note": "; ".join(run.remarks),
        "network": run.network or UNKNOWN,
        "parameters": run.parameters or UNKNOWN,
        "LRMAX": bounds[0],
        "LRMIN": bounds[1],
        "recipe": run.recipe or UNKNOWN,
    }


def text_table(rows: list[dict[str, Any]], width: int = WIDTH) -> str:
    """The table as aligned text without notes; columns are dropped until it fits in ``width`` characters."""
    columns = [column for column in rows[0] if column not in ("note", "data")]
    for dropped in ("", *DISPENSABLE):
        columns = [column for column in columns if column != dropped]
        cells = [columns, *([f"{row[c]:,}" if isinstance(row[c], int) else row[c] for c in columns] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            break
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    )


def overlaid_curves(compared: list[RunRecord]) -> Section:
    """The curves of all runs that recorded any, in one figure for each data set."""
    with_curves = [run for run in compared if any(run.series(c)[0] for c in (f"{run.watched}/acc", "train/loss"))]
    groups = by_data_set(with_curves)
    if not groups:
        return Section("curves", "Curves", missing="no run has an epochs.csv with accuracy or training loss")
    caption = "Accuracy after each epoch (on the test images, unless marked validation), training loss and LR."
    without = [run.name for run in compared if run not in with_curves]
    return Section(
        "curves",
        "Curves",
        {f"{data}: {caption}" if len(groups) > 1 else caption: _curves(group) for data, group in groups.items()},
        numbers={run.name: run.metrics for run in with_curves},
        text=[f"Without curves: {', '.join(without)}."] if without else [],
    )


def _curves(drawn: list[RunRecord]) -> Figure:
    stages = [f", {NAMES['val']}" if run.watched == "val" else "" for run in drawn]
    names = [drawable(run.name, [run.name for run in drawn], "run") for run in drawn]
    names = [shorten(name, 6.8, "small", end=stage) for name, stage in zip(names, stages, strict=True)]
    labels = [name.replace("$", r"\$") for name in names]  # a dollar sign would start a formula
    widest = max(text_width(name, "small") for name in names)
    beside = max(1, min(4, int(7.6 / (widest + 0.6))))  # 0.6 inches for a line and spaces
    figure = Figure(figsize=(8, 7.4 + 0.19 * -(-len(drawn) // beside)), layout="constrained")
    accuracy, loss, rate = figure.subplots(3, 1, sharex=True, height_ratios=(4, 3, 1.3))
    for number, run in enumerate(drawn):
        style = {"color": f"C{number % 10}", "linestyle": DASHES[number // 10 % len(DASHES)]}
        for axes, column in ((accuracy, f"{run.watched}/acc"), (loss, "train/loss"), (rate, "lr")):
            epochs, values = run.series(column)
            axes.plot(epochs, values, marker="o" if len(epochs) == 1 else "", **style)
    loss.set(ylabel="training loss", ylim=(0, None))
    style_curves(accuracy, loss, rate)
    font = {"family": text_style(labels)["fontfamily"], "size": "small"}
    figure.legend(accuracy.get_lines(), labels, loc="outside lower center", ncols=beside, frameon=False, prop=font)
    return figure
