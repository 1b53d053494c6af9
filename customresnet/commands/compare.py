"""Compare runs on one page: what they are, how well they did, their curves, and whether they really differ."""

from pathlib import Path
from typing import Any

from customresnet.analysis.comparison.differences import POINTS, answers, differences
from customresnet.analysis.comparison.overlaid_curves import overlaid_curves
from customresnet.analysis.evaluation.curves import NAMES
from customresnet.analysis.page import Section, write_page
from customresnet.analysis.run_images import DataOptions
from customresnet.runs.folders import LOGS
from customresnet.runs.found_runs import find_runs
from customresnet.runs.recorded_run import RecordedRun
from customresnet.runtime import files

UNKNOWN = "-"
WIDTH = 120
"""Letters in a line of text."""
DISPENSABLE = ("recipe", "parameters", "best training", "LRMIN", "time", "LRMAX", "network", "epochs")
"""Columns that the text leaves out to be narrow enough, in this order."""
FEW = 10
"""Pairs of runs that are listed in text."""


def compare(*runs: str, data: DataOptions = DataOptions(), output: Path | None = None) -> Path:
    """Compare runs: writes a page with a table, curves and tests of their differences, and these as files.

    Args:
        runs: Folders of runs, checkpoints, folders with runs beneath them, or pretrained. Default: lightning_logs.
        data: Where the test images are.
        output: Folder to write to. Default: lightning_logs/compare.

    Returns:
        The path of the page.
    """
    compared = find_runs(runs or [LOGS])
    output = output or Path(LOGS) / "compare"
    files.make_folder(output, "--output")
    table, differ = run_table(compared), differences(answers(compared, data))
    title = f"Comparison of {len(compared)} runs" if len(compared) > 1 else compared[0].name
    page = write_page(output, title, [table, overlaid_curves(compared), differ])
    print(text_table(table.table))
    for run in compared:
        if run.remarks:
            print(f"{run.name}: {'; '.join(run.remarks)}")
    print(in_words(differ))
    print(f"comparison: {files.shown(page.resolve())}")
    return page


def run_table(compared: list[RecordedRun]) -> Section:
    """What each run is, and what it says of itself."""
    return Section(
        "runs",
        "Runs",
        numbers=[_numbers(run) for run in compared],
        text=[
            "Accuracies and times are those that the runs recorded themselves; the intervals are Wilson's, of 95 %. "
            "LRMAX and LRMIN were found by the LR range test or given by hand."
        ],
        table=[_row(run) for run in compared],
    )


def _numbers(run: RecordedRun) -> dict[str, Any]:
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


def _row(run: RecordedRun) -> dict[str, Any]:
    """The same to be read."""
    evaluation = run.evaluation
    held_out = f"{NAMES[evaluation.stage]} " if evaluation.stage == "val" else ""
    rates = [f"{rate:.3g} {origin}" if rate else UNKNOWN for rate, origin in map(run.bound, ("lr_max", "lr_min"))]
    interval = evaluation.interval
    return {
        "run": run.name,
        "test accuracy": held_out + _percent(evaluation.accuracy),
        "95 % interval": f"{_percent(interval[0])} to {_percent(interval[1])}" if interval else UNKNOWN,
        "best training": _percent(run.best_training),
        "epochs": f"{run.epochs} of {run.planned}" if run.planned else str(run.epochs),
        "time": _clock(run.seconds),
        "note": "; ".join(run.remarks),
        "network": run.network or UNKNOWN,
        "parameters": run.parameters or UNKNOWN,
        "LRMAX": rates[0],
        "LRMIN": rates[1],
        "recipe": run.recipe or UNKNOWN,
    }


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.2%}"


def _clock(seconds: float | None) -> str:
    """``1:55:38``: hours, minutes and seconds."""
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def text_table(rows: list[dict[str, Any]], width: int = WIDTH) -> str:
    """The table of the runs as aligned text without its notes, and without what would make it wider than ``width``."""
    columns = [column for column in rows[0] if column != "note"]
    for dispensable in ("", *DISPENSABLE):
        columns = [column for column in columns if column != dispensable]
        cells = [columns, *([f"{row[c]:,}" if isinstance(row[c], int) else row[c] for c in columns] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            break
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    )


def in_words(differ: Section) -> str:
    """The verdicts on every two runs, a line each, or how many there are."""
    if differ.missing:
        return f"not tested for differences: {differ.missing}"
    if len(differ.table) > FEW:
        apart = sum(row["verdict"].startswith("differ") for row in differ.table)
        return f"{apart} of {len(differ.table)} pairs of runs differ"
    return "\n".join(f"{row['pair']}: {row['verdict']}; {row[POINTS]} points" for row in differ.table)
