"""compare: compare runs on one page."""

from pathlib import Path

from customresnet.analysis.comparison.evaluations import by_data_set, evaluate_runs
from customresnet.analysis.comparison.runs import overlaid_curves, run_table, text_table
from customresnet.analysis.comparison.significance import significance, verdicts
from customresnet.analysis.evaluation.predictions import DataOptions
from customresnet.analysis.page import tables, write_page
from customresnet.runs.find import find_runs
from customresnet.runs.folders import LOGS
from customresnet.runtime import files


def compare(*runs: str, data: DataOptions = DataOptions(), output: Path | None = None) -> Path:
    """Compare runs on one page: a table, curves and significance tests.

    Args:
        runs: Folders of runs, checkpoints, folders that contain runs, or pretrained. Default: lightning_logs.
        data: The test images.
        output: Folder to write to. Default: lightning_logs/compare.

    Returns:
        The path of the page.
    """
    compared = find_runs(runs or [LOGS])
    output = output or Path(LOGS) / "compare"
    files.make_folder(output, "`output`")
    groups = by_data_set(compared)
    table, differences = run_table(compared), significance(evaluate_runs(compared, data))
    title = f"Comparison of {len(compared)} runs" if len(compared) > 1 else compared[0].name
    where = next(iter(groups)) if len(groups) == 1 else f"{len(groups)} data sets"
    page = write_page(output, f"{title} on {where}", [table, overlaid_curves(compared), differences])
    for name, rows in tables(table).items():
        print(f"{name}:\n{text_table(rows)}" if name else text_table(rows))
    for run in compared:
        if run.remarks:
            print(f"{run.name}: {'; '.join(run.remarks)}")
    print(verdicts(differences))
    print(f"comparison: {files.shown(page.resolve())}")
    return page
