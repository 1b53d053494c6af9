"""Train a plan of recipes, one run after another, and tabulate the results.

    python -m experiments.lab run lr-max-width32 --data.source folder --data.root cifar10.zip
    python -m experiments.lab table lr-max-width32
    python -m experiments.lab rules

A plan (experiments/plans/NAME.yaml) lists cells: a name, and the flags of ``fit`` that it adds to the plan's own. Every
cell trains with every seed, all cells of the first seed first. A finished run is one JSON line in
experiments/results/NAME.jsonl: flags, seed, commit, metrics of every epoch, result and PFLOP. The cell called lr-find
is the LR range test in the plan's setting; its line has the curve. The runs are in ``--work``. ``run`` can be
interrupted at any moment and started again: it skips finished runs and resumes unfinished ones. All other flags are
passed to ``fit``. ``rules`` compares the LRMAX that each rule of the LR range test picks with those that trained best,
in every plan that has both.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from customresnet.models import build_network
from customresnet.runs.checkpoint import read_checkpoint
from customresnet.runs.files import read_record
from customresnet.runs.folders import is_finished, last_checkpoint
from customresnet.runtime.files import write_atomically
from customresnet.runtime.formatting import percent
from customresnet.training.lr.bounds import LRRangeTest, choose_bounds

LR_FIND = "lr-find"
LR_MAX = "lr-max-"
"""How the names of plans begin whose cells are values of LRMAX."""
HERE = Path(__file__).parent
PLANS, RESULTS = HERE / "plans", HERE / "results"


@dataclass(frozen=True)
class Cell:
    """One recipe of a plan, with one seed.

    Attributes:
        name: The recipe's name, unique in the plan.
        seed: The seed of the run.
        own: The flags of ``fit`` that only this recipe has.
        common: Those that all recipes of the plan share.
    """

    name: str
    seed: int
    own: tuple[str, ...]
    common: tuple[str, ...]

    @property
    def folder(self) -> str:
        return f"{self.name}-seed{self.seed}"


def read_plan(plan_name: str) -> list[Cell]:
    """The cells of a plan, all of the first seed first."""
    plan = yaml.safe_load((PLANS / f"{plan_name}.yaml").read_text(encoding="utf-8"))
    common = tuple(plan.get("flags", "").split())
    cells = {str(cell): tuple((flags or "").split()) for cell, flags in plan["cells"].items()}
    return [Cell(name, seed, own, common) for seed in plan["seeds"] for name, own in cells.items()]


def read_results(name: str) -> list[dict[str, Any]]:
    """The finished runs of a plan."""
    path = RESULTS / f"{name}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


# ------------------------------------------------------------------------------------------------------------- running


def run(name: str, work: Path, budget: float, data: list[str]) -> None:
    """Train the cells that are not finished, for at most ``budget`` seconds."""
    deadline = time.monotonic() + budget
    for cell in read_plan(name):
        if any((row["cell"], row["seed"]) == (cell.name, cell.seed) for row in read_results(name)):
            continue
        folder = work / name / cell.folder
        if read_finished(folder) is None and not train(cell, folder, deadline, data):
            print(f"stopped: {cell.folder} resumes with the same command", flush=True)
            return
        keep(name, cell, folder)
    print("every run of the plan is finished", flush=True)


def train(cell: Cell, folder: Path, deadline: float, data: list[str]) -> bool:
    """Start or resume one run; False if the time is up first."""
    version = folder / "lightning_logs/lab/version_0"
    command = LR_FIND if cell.name == LR_FIND else "fit"
    if last_checkpoint(version).is_file():
        words = ["--ckpt_path", str(version)]
    else:
        shutil.rmtree(folder, ignore_errors=True)  # it has no checkpoint to resume
        words = [*cell.common, *cell.own, *data, "--seed_everything", str(cell.seed), "--trainer.run_name", "lab"]
        words += ["--trainer.default_root_dir", str(folder)]
    if deadline - time.monotonic() < 1:
        return False
    if command == "fit":
        words += ["--report", "false"]
    print(f"{cell.folder}: {command} {' '.join(words)}", flush=True)
    child = subprocess.Popen([sys.executable, "-m", "customresnet", command, *words])
    try:
        code = child.wait(timeout=deadline - time.monotonic())
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.send_signal(signal.SIGINT)
        child.wait()
        return False
    if code:
        sys.exit(f"{cell.folder} failed with exit code {code}")
    return True


def read_finished(folder: Path) -> dict[str, Any] | None:
    """The result of a finished run; None if it is unfinished."""
    version = folder / "lightning_logs/lab/version_0"
    if folder.name.startswith(LR_FIND):
        return read_record("lr_find", version) or None
    return read_record("result", version) if is_finished(version) else None


def keep(name: str, cell: Cell, folder: Path) -> None:
    """Append a finished run to the plan's results."""
    version = folder / "lightning_logs/lab/version_0"
    result, epochs = read_finished(folder) or {}, read_record("metrics", version)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    row: dict[str, Any] = {
        "cell": cell.name,
        "seed": cell.seed,
        "flags": " ".join(cell.own),
        "common": " ".join(cell.common),
        "commit": commit.stdout.strip(),
    }
    if cell.name == LR_FIND:
        row |= {name: result[name] for name in ("lrs", "losses")}
    else:
        work = pflop(read_checkpoint(last_checkpoint(version)), result)
        row |= {"pflop": work, "result": result, "epochs": epochs}
    RESULTS.mkdir(exist_ok=True)
    rows = [*read_results(name), row]
    write_atomically(RESULTS / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def pflop(checkpoint: dict[str, Any], result: dict[str, Any]) -> float:
    """Floating-point operations of training, in 10^15: three times the forward pass of every training image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    options, size = checkpoint["hyper_parameters"], checkpoint["preprocessing"]["image_size"]
    network = build_network(**{name: options[name] for name in ("network", "num_classes", "width", "dropout")})
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.zeros(1, 3, size, size))
    images = result["images_per_second"] * result["seconds"]
    return round(3 * counter.get_total_flops() * images / 1e15, 4)


# -------------------------------------------------------------------------------------------------------------- tables


def table(name: str) -> str:
    """Accuracy of every cell as a Markdown table: n, mean and standard deviation, difference from the first cell."""
    rows = [row for row in read_results(name) if row["cell"] != LR_FIND]
    cells: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        cells[row["cell"]][row["seed"]] = row
    if not cells:
        return "no run is finished"
    first, shown = next(iter(cells.values())), columns(rows)
    head = ["recipe", "flags", "n", *shown, "difference to the first, paired", "PFLOP", "minutes"]
    lines = [head, ["---"] * len(head)]
    for cell, runs in cells.items():
        shared = [seed for seed in runs if seed in first]
        differences = [100 * (runs[s]["result"][shown[0]] - first[s]["result"][shown[0]]) for s in shared]
        some, results = next(iter(runs.values())), [row["result"] for row in runs.values()]
        accuracies = [spread([result[column] for result in results]) for column in shown]
        minutes = statistics.mean(result["seconds"] for result in results) / 60
        own = f"`{some['flags']}`" if some["flags"] else ""
        lines.append(
            [cell, own, str(len(runs)), *accuracies, signed(differences), f"{some['pflop']:.2f}", f"{minutes:.0f}"]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rules() -> str:
    """Held-out accuracy by setting and LRMAX, and what each rule picks there, as a Markdown table.

    Accuracies are means over the seeds, picks medians. The best accuracy of a row is bold.
    """
    settings = {name: accuracies_and_picks(name) for name in plans() if name.startswith(LR_MAX)}
    settings = {name: found for name, found in settings.items() if all(found)}
    grid = sorted({lr for accuracies, _ in settings.values() for lr in accuracies})
    names = list(next(iter(settings.values()))[1])
    lines = [["setting", *(f"{lr:g}" for lr in grid), *names], ["---"] * (1 + len(grid) + len(names))]
    for name, (accuracies, picks) in settings.items():
        best = max(accuracies.values())
        cells = [f"{100 * accuracies[lr]:.2f}" if lr in accuracies else "" for lr in grid]
        cells = [f"**{cell}**" if accuracies.get(lr) == best else cell for lr, cell in zip(grid, cells, strict=True)]
        lines.append([name.removeprefix(LR_MAX), *cells, *(f"{lr:.1e}" for lr in picks.values())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def accuracies_and_picks(name: str) -> tuple[dict[float, float], dict[str, float]]:
    """Mean held-out accuracy by LRMAX, and the median pick of each rule, over the seeds of a plan."""
    accuracies, picks = defaultdict(list), defaultdict(list)
    for row in read_results(name):
        if row["cell"] == LR_FIND:
            found = choose_bounds(np.array(row["lrs"]), np.array(row["losses"]), LRRangeTest())
            for rule, lr in found.candidates.items():
                picks[rule].append(lr)
        else:
            accuracies[float(row["cell"])].append(row["result"]["val/acc"])
    mean = {lr: statistics.mean(values) for lr, values in accuracies.items()}
    return mean, {rule: statistics.median(values) for rule, values in picks.items()}


def columns(rows: list[dict[str, Any]]) -> list[str]:
    """The accuracies that every run has, held-out images first."""
    return [column for column in ("val/acc", "test/acc") if all(column in row["result"] for row in rows)]


def spread(values: list[float]) -> str:
    mean = percent(statistics.mean(values))
    return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def signed(differences: list[float]) -> str:
    if not differences or not any(differences):
        return "-"
    mean = f"{statistics.mean(differences):+.2f}"
    return f"{mean} ± {statistics.stdev(differences):.2f}" if len(differences) > 1 else mean


def seconds(text: str) -> float:
    """``8m``, ``90s`` or ``2h`` in seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    if text[-1:] not in units or not text[:-1].replace(".", "", 1).isdigit():
        raise argparse.ArgumentTypeError(f"a time such as 90s, 8m or 2h; received {text}")
    return float(text[:-1]) * units[text[-1]]


def plans() -> Iterator[str]:
    return (path.stem for path in sorted(PLANS.glob("*.yaml")))


def main() -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table", "rules"))
    parser.add_argument("plan", choices=list(plans()), nargs="?")
    parser.add_argument(
        "--work", type=Path, default=Path("lightning_logs/lab"), help="folder of the runs (%(default)s)"
    )
    parser.add_argument("--budget", type=seconds, default="1000h", help="stop after this time: 90s, 8m, 2h")
    options, data = parser.parse_known_args()
    if options.command == "rules":
        print(rules())
    elif options.plan is None:
        parser.error(f"{options.command} needs a plan")
    elif options.command == "table":
        print(table(options.plan))
    else:
        run(options.plan, options.work, options.budget, data)


if __name__ == "__main__":
    main()
