"""Training speed on this machine, compared with other training loops and with the limit of the hardware.

    make bench             # 20 minutes on two cores with bf16, 39 without
    make bench QUICK=1     # small batches, one round, nothing compiled

Every measurement runs in its own process. A round runs all of them in turn, so that a change in the machine's load
affects all alike. Only ratios within a run are meaningful, and they are computed per round. Results go to a JSON file.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.picture import draw
from customresnet.runtime.files import write_atomically
from customresnet.runtime.hardware import device_name
from customresnet.runtime.precision import cpu_has_bf16

RESULTS = Path(__file__).parent / "results"
ENVIRONMENT = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "OMP_NUM_THREADS")
"""Environment variables that affect speed; recorded if set."""
LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "albumentations", "numpy")

GOALS = {
    "fit_over_bare": ("`fit` ÷ bare loop (compiled or not, whichever is faster)", "0.98"),
    "fit_over_notebook": ("`fit` ÷ notebook loop", "2.9 with bf16, 1.3 without"),
    "overhead_ms": ("overhead of `fit` per step over the bare loop, in ms (width 8, batch 32)", ""),
    "ceiling_share": ("`fit` ÷ the convolutions alone", "0.85"),
    "batch_over_albumentations": ("batch backend ÷ Albumentations, one process", "5"),
    "large_over_small": ("`fit` with 50,000 images ÷ with 12,500", "0.95 to 1.05"),
    "help_over_import": ("`--help` ÷ `import pytorch_lightning.cli`", "at most 1.3"),
    "peak_gib": ("peak memory of `fit`, 50,000 images, in GiB", "at most 3"),
}
"""Label and goal of each ratio."""


@dataclass(frozen=True)
class Measurement:
    """One measurement, a row of the table.

    Attributes:
        label: Its label in the table.
        case: Name of a function in ``benchmarks.cases``; None times Python with the arguments ``options["command"]``.
        options: Arguments of the function.
        once: Measure in the first round only.
    """

    label: str
    case: str | None
    options: dict[str, Any]
    once: bool = False


def measurements(quick: bool) -> dict[str, Measurement]:
    """All measurements, by their key in the results."""
    size = {"steps": 3, "batch_size": 64 if quick else 512}
    short = {**size, "compile": False}
    tiny = {"steps": 300, "batch_size": 32, "width": 8}  # steps so short that overhead is visible
    images = {"images": 2_000 if quick else 10_000}
    chosen = {
        "notebook": Measurement("notebook loop (fp32, NCHW)", "notebook", size),
        "bare": Measurement("bare loop", "bare", short),
        "fit_batch": Measurement("fit, batch backend", "fit", {**short, "engine": "batch"}),
        "fit_albumentations": Measurement("fit, Albumentations", "fit", {**short, "engine": "albumentations"}),
        "bare_tiny": Measurement("bare loop, width 8, batch 32", "bare", tiny),
        "fit_tiny": Measurement("fit, batch backend, width 8, batch 32", "fit", tiny),
        "input_batch": Measurement("input: batch backend", "pipeline", {**images, "kind": "batch"}),
        "input_albumentations": Measurement("input: Albumentations", "pipeline", {**images, "kind": "albumentations"}),
        "products": Measurement("matrix products", "products", {"seconds": 0.5 if quick else 2.0}),
        "convolutions": Measurement(
            "the network's convolutions alone",
            "convolutions",
            {"batch_size": size["batch_size"], "seconds": 0.1 if quick else 1.0},
        ),
        "profile_before": Measurement("a step, memory returned", "profile", {**size, "keep": False}, once=True),
        "profile": Measurement("a step, memory kept", "profile", size, once=True),
        "help": Measurement("--help", None, {"command": ["-m", "customresnet", "--help"]}),
        "import": Measurement(
            "import pytorch_lightning.cli", None, {"command": ["-c", "import pytorch_lightning.cli"]}
        ),
    }
    if quick:
        return chosen
    compiled = {**size, "compile": True}
    chosen |= {
        "bare_compiled": Measurement("bare loop, compiled", "bare", compiled),
        "fit_batch_compiled": Measurement("fit, batch backend, compiled", "fit", {**compiled, "engine": "batch"}),
        "input_torchvision": Measurement(
            "input: torchvision.transforms.v2", "pipeline", {**images, "kind": "torchvision"}
        ),
    }
    for workers in (1, 2):
        options = {**images, "kind": "albumentations", "workers": workers}
        label = f"input: Albumentations, {workers} worker" + "s" * (workers > 1)
        chosen[f"input_albumentations_{workers}"] = Measurement(label, "pipeline", options)
    for count in (12_500, 25_000, 50_000):
        chosen[f"images_{count}"] = Measurement(f"fit, {count:,} images", "fit", {**short, "images": count})
    for batch_size in (128, 256, 1024, 2048):
        options = {**short, "batch_size": batch_size, "steps": max(2, 1024 // batch_size)}
        chosen[f"batch_{batch_size}"] = Measurement(f"fit, batch {batch_size}", "fit", options, once=True)
    for width in (32, 128):
        options = {**short, "width": width, "steps": 2}
        chosen[f"width_{width}"] = Measurement(f"fit, width {width}", "fit", options, once=True)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small batches, one round, nothing compiled")
    parser.add_argument("--rounds", type=int, help="number of rounds (default: 3; 2 without bf16; 1 with --quick)")
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/PROCESSOR.json)")
    args = parser.parse_args()
    if args.rounds is not None and args.rounds < 1:
        parser.error(f"--rounds must be at least 1; received {args.rounds}")
    bf16, started = cpu_has_bf16(), time.monotonic()
    rounds = args.rounds or (1 if args.quick else 3 if bf16 else 2)
    processor = device_name(torch.device("cpu"))
    results: dict[str, Any] = {
        "processor": processor,
        "bf16": bf16,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "quick": args.quick,
        "samples": {},
    }
    name = "quick" if args.quick else "".join(c if c.isalnum() else "-" for c in processor.lower()).replace("--", "-")
    output = args.output or RESULTS / f"{name}{'-bf16' * (bf16 and not args.quick)}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    planned = measurements(args.quick)
    labels = {key: measurement.label for key, measurement in planned.items()}
    for number in range(rounds):
        # in alternating order, so that no measurement always comes first
        for key, measurement in list(planned.items())[:: -1 if number % 2 else 1]:
            if number and measurement.once:
                continue
            sample = measure(measurement)
            results["samples"].setdefault(key, []).append(sample)
            print(f"round {number + 1}/{rounds}  {measurement.label:<40}{shown(sample)}", flush=True)
        results["ratios"] = ratios(results["samples"])
        results["minutes"] = round((time.monotonic() - started) / 60, 1)
        write_atomically(output, json.dumps(results, indent=1))
        draw(results, labels).savefig(output.with_suffix(".png"), dpi=120)
    print(f"\n{table(results, planned)}\n\nwrote {output} ({results['minutes']} minutes)")


def measure(measurement: Measurement) -> dict[str, Any]:
    """Run one measurement in its own process."""
    if measurement.case is None:
        words, start = measurement.options["command"], time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        return {"seconds": time.perf_counter() - start}
    words = ["-m", "benchmarks.cases", measurement.case, json.dumps(measurement.options)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        sys.exit(f"{measurement.label} failed:\n{done.stdout}{done.stderr}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def ratios(samples: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """The ratios of ``GOALS``, computed per round: median, lowest and highest."""

    def speed(*names: str) -> list[float]:
        """Images per second of the fastest of these measurements, per round."""
        known = [samples[name] for name in names if name in samples]
        return [max(sample["images_per_second"] for sample in row) for row in zip(*known, strict=True)]

    fit = speed("fit_batch")  # not compiled, as by default
    pairs = {
        "fit_over_bare": (fit, speed("bare", "bare_compiled")),
        "fit_over_notebook": (fit, speed("notebook")),
        "ceiling_share": (fit, speed("convolutions")),
        "batch_over_albumentations": (speed("input_batch"), speed("input_albumentations")),
        "large_over_small": (speed("images_50000"), speed("images_12500")),
        "help_over_import": tuple([sample["seconds"] for sample in samples[name]] for name in ("help", "import")),
    }
    found = {name: spread([a / b for a, b in zip(*pair, strict=True)]) for name, pair in pairs.items() if pair[0]}
    tiny = zip(samples["fit_tiny"], samples["bare_tiny"], strict=True)
    found["overhead_ms"] = spread([1000 * (ours["seconds_per_step"] - bare["seconds_per_step"]) for ours, bare in tiny])
    if "images_50000" in samples:
        found["peak_gib"] = spread([sample["peak_gib"] for sample in samples["images_50000"]])
    return found


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def shown(sample: dict[str, Any]) -> str:
    """A sample as text for the log."""
    if "images_per_second" in sample:
        return f"{sample['images_per_second']:,.0f} images/s, {sample['peak_gib']:.2f} GiB"
    if "parts" in sample:
        return f"{sum(sample['parts'].values()):.2f} s"
    if "seconds" in sample:
        return f"{sample['seconds']:.2f} s"
    return ", ".join(f"{name} {value:,.0f} GFLOP/s" for name, value in sample.items() if name != "peak_gib")


def table(results: dict[str, Any], planned: dict[str, Measurement]) -> str:
    """Format the results as Markdown tables."""
    bf16 = "with" if results["bf16"] else "without"
    lines = [f"{results['processor']}, {bf16} bf16; torch {results['versions']['torch']}", ""]
    lines += ["| | median | lowest to highest | peak memory |", "|---|---|---|---|"]
    for key, samples in results["samples"].items():
        if "images_per_second" not in samples[0]:
            continue
        s = spread([sample["images_per_second"] for sample in samples])
        alone = not planned[key].options.get("workers")  # the memory of worker processes is not measured
        peak = f"{max(sample['peak_gib'] for sample in samples):.2f} GiB" if alone else ""
        bounds = f"{s['lowest']:,.0f} to {s['highest']:,.0f}" if len(samples) > 1 else ""
        lines.append(f"| {planned[key].label} | {s['median']:,.0f} images/s | {bounds} | {peak} |")
    lines += ["", "| ratio, computed per round | median | lowest to highest | goal |", "|---|---|---|---|"]
    for name, s in results["ratios"].items():
        words, goal = GOALS[name]
        lines.append(f"| {words} | {s['median']:.2f} | {s['lowest']:.2f} to {s['highest']:.2f} | {goal} |")
    profiles = [results["samples"][name][0]["parts"] for name in ("profile_before", "profile")]
    lines += ["", "| part of a step | memory returned | memory kept |", "|---|---|---|"]
    for part in profiles[0]:
        lines.append(f"| {part} | " + " | ".join(f"{1000 * column[part]:,.0f} ms" for column in profiles) + " |")
    layers = [sample["layers"] for sample in results["samples"]["convolutions"] if "layers" in sample]
    if layers:
        lines += ["", "| layer, forward and backward | GFLOP/s |", "|---|---|"]
        lines += [f"| `{name}` | {statistics.median(each[name] for each in layers):,.0f} |" for name in layers[0]]
        products = results["samples"]["products"]
        for kind in sorted(products[0].keys() - {"peak_gib"}):
            lines.append(f"| large matrix product, {kind} | {statistics.median(s[kind] for s in products):,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
