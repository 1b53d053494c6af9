"""Plot the results of the benchmark: the speed of each training loop, and where a step spends its time."""

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOPS = ("notebook", "bare", "bare_compiled", "fit_albumentations", "fit_batch", "fit_batch_compiled")
"""The training loops, slowest first."""


def draw(results: dict[str, Any], labels: dict[str, str]) -> "Figure":
    """Plot the results of one run.

    Args:
        results: The content of the JSON file.
        labels: Label of each measurement.
    """
    from matplotlib.figure import Figure

    samples = results["samples"]
    loops = [name for name in LOOPS if name in samples]
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(loops)), layout="constrained")
    speed, parts = figure.subplots(1, 2, width_ratios=(3, 2))
    for row, name in enumerate(loops):
        values = sorted(sample["images_per_second"] for sample in samples[name])
        middle = statistics.median(values)
        speed.barh(row, middle, color="C0" if name.startswith("fit") else "0.7")
        speed.plot([values[0], values[-1]], [row, row], color="black", linewidth=1)
        speed.text(3, row, f"{middle:,.0f}", va="center", color="white" if name.startswith("fit") else "black")
    ceiling = statistics.median(sample["images_per_second"] for sample in samples["convolutions"])
    speed.axvline(ceiling, color="C3", linestyle="--")
    speed.set_yticks(range(len(loops)), [labels[name] for name in loops])
    speed.invert_yaxis()
    speed.set(xlabel="images/s (line: lowest to highest)", title="Training (dashed: convolutions alone)")
    left = [0.0, 0.0]
    columns = [samples[name][0]["parts"] for name in ("profile_before", "profile") if name in samples]
    for number, part in enumerate(columns[0]):
        for row, column in enumerate(columns):
            parts.barh(row, column[part], left=left[row], color=f"C{number}", label=part if row == 0 else None)
            left[row] += column[part]
    parts.set_yticks(range(len(columns)), ["memory returned", "memory kept"][: len(columns)])
    parts.invert_yaxis()
    parts.set(xlabel="seconds per step", title="One training step")
    figure.legend(
        *parts.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize="small"
    )
    return figure
