"""The benchmark: every case runs and measures what it claims, and the ratios follow from the samples."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from benchmarks import cases, run
from benchmarks.profiling import part_of
from customresnet import CustomResNet
from customresnet.analysis.network.layers import profile
from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.batch_backend import BatchBackend
from tests.conftest import read_json

ROOT = Path(__file__).parents[1]
SPREAD = ("median", "lowest", "highest")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("notebook", {"steps": 1, "batch_size": 4}),
        ("bare", {"steps": 1, "batch_size": 4, "compile": False}),
        ("fit", {"steps": 1, "batch_size": 4, "width": 8, "engine": "batch", "compile": False}),
        ("fit", {"steps": 1, "batch_size": 4, "width": 8, "engine": "albumentations", "compile": False}),
        ("pipeline", {"images": 64, "kind": "batch", "batch_size": 16}),
        ("pipeline", {"images": 64, "kind": "albumentations", "batch_size": 16}),
        ("pipeline", {"images": 64, "kind": "torchvision", "batch_size": 16}),
    ],
)
def test_a_case_measures_images_per_second(name, options):
    result = cases.CASES[name](**options)
    assert result["images_per_second"] > 0
    if "steps" in options:
        assert result["images_per_second"] * result["seconds_per_step"] == pytest.approx(4)


@pytest.mark.parametrize(("engine", "used"), [("batch", BatchBackend), ("albumentations", AlbumentationsBackend)])
def test_fit_and_the_input_pipeline_use_the_chosen_backend(monkeypatch, engine, used):
    calls, prepare = [], used.__call__

    def count(self: Any, images: Tensor, *args: Any) -> Tensor:
        calls.append(1)
        return prepare(self, images, *args)

    monkeypatch.setattr(used, "__call__", count)
    cases.fit(steps=1, batch_size=4, width=8, engine=engine)
    trained = len(calls)
    assert trained >= cases.WARM_UP + 1
    cases.pipeline(images=64, kind=engine, batch_size=16)
    assert len(calls) == trained + 2 * 4  # two passes over 64 images


def test_the_profile_divides_a_step_into_parts():
    parts = cases.profile(batch_size=2, steps=1)["parts"]
    assert min(parts.values()) >= 0
    assert parts["convolutions, backward"] > 0
    assert parts["convolutions, forward"] > 0
    for operator, part in {
        "aten::mkldnn_convolution": "convolutions, forward",
        "aten::convolution_backward": "convolutions, backward",
        "aten::max_pool2d_with_indices_backward": "max-pooling",
        "aten::native_batch_norm_backward": "batch norm",
        "aten::add_": "sums and copies",
        "aten::_fused_adam_": "optimizer",
        "Optimizer.zero_grad#Adam.zero_grad": "optimizer",
        "aten::addmm": "linear layer",
        "aten::empty": "all else",
    }.items():
        assert part_of(operator) == part


def test_the_ceiling_counts_the_operations_of_a_training_step():
    measured = cases.convolutions(batch_size=2, seconds=0.01)
    counted = [layer for layer in profile(CustomResNet()).layers if layer.flops]
    first, *rest = [layer.flops for layer in counted]
    operations = 2 * first + 3 * sum(rest)  # forward, gradients of weights and, except for images, of the input
    assert measured["gflops"] * 1e9 / measured["images_per_second"] == pytest.approx(operations)
    seconds = sum(  # the layers together take the whole time
        (2 if number == 0 else 3) * layer.flops / (speed * 1e9)
        for number, (layer, speed) in enumerate(zip(counted, measured["layers"].values(), strict=True))
    )
    assert seconds == pytest.approx(1 / measured["images_per_second"])


def test_a_stopwatch_ignores_the_warm_up(monkeypatch):
    times = iter([10.0, 14.0])
    monkeypatch.setattr(cases.time, "perf_counter", lambda: next(times))
    watch = cases.Stopwatch(steps=2, batch_size=8)
    assert [watch.tick() for _ in range(4)] == [False, False, False, True]
    assert watch.result() == {"images_per_second": 4.0, "seconds_per_step": 2.0}


def test_ratios_compare_fit_with_the_fastest_bare_loop_of_each_round():
    def speeds(*values: float) -> list[dict[str, float]]:
        return [{"images_per_second": value, "peak_gib": 1 + value / 100} for value in values]

    samples = {
        "fit_batch": speeds(90, 40, 80),
        "fit_batch_compiled": speeds(100, 50, 60),
        "fit_tiny": [{"seconds_per_step": 0.012}, {"seconds_per_step": 0.015}, {"seconds_per_step": 0.013}],
        "bare_tiny": [{"seconds_per_step": 0.010}, {"seconds_per_step": 0.010}, {"seconds_per_step": 0.012}],
        "bare": speeds(100, 40, 100),
        "bare_compiled": speeds(80, 50, 90),
        "notebook": speeds(50, 10, 20),
        "convolutions": speeds(200, 100, 160),
        "input_batch": speeds(500, 500, 500),
        "input_albumentations": speeds(100, 50, 125),
        "images_12500": speeds(100, 80, 90),
        "images_50000": speeds(98, 80, 99),
        "help": [{"seconds": 6.0}, {"seconds": 5.0}, {"seconds": 5.5}],
        "import": [{"seconds": 5.0}, {"seconds": 5.0}, {"seconds": 5.0}],
    }
    found = run.ratios(samples)
    assert found["fit_over_bare"] == {"median": 0.8, "lowest": 0.8, "highest": 0.9}
    assert found["fit_over_notebook"] == {"median": 4.0, "lowest": 1.8, "highest": 4.0}
    assert found["overhead_ms"] == {key: pytest.approx(ms) for key, ms in zip(SPREAD, (2, 1, 5), strict=True)}
    assert found["ceiling_share"]["median"] == 0.45
    assert found["batch_over_albumentations"]["median"] == 5.0
    assert found["help_over_import"]["median"] == pytest.approx(1.1)
    assert found["large_over_small"] == {"median": 1.0, "lowest": 0.98, "highest": 1.1}
    assert found["peak_gib"]["median"] == pytest.approx(1.98)
    small = {name: rows for name, rows in samples.items() if not name.startswith("images")}
    assert found.keys() - run.ratios(small).keys() == {"large_over_small", "peak_gib"}


def test_every_measurement_has_a_case_and_json_options():
    for quick in (True, False):
        for measurement in run.measurements(quick).values():
            assert measurement.case is None or measurement.case in cases.CASES
            json.dumps(measurement.options)


@pytest.mark.parametrize("rounds", ["0", "-1"])
def test_too_few_rounds_are_an_error(monkeypatch, capsys, rounds):
    monkeypatch.setattr(sys, "argv", ["run.py", "--rounds", rounds])
    with pytest.raises(SystemExit) as stop:
        run.main()
    assert stop.value.code == 2
    assert f"--rounds must be at least 1; received {rounds}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "machine", "count"),
    [
        ("amd-epyc-2-cores-bf16", "AMD EPYC, 2 cores, with bf16", 3),  # older than the table of single layers
        ("amd-epyc-2-cores", "AMD EPYC, 2 cores, without bf16", 4),
    ],
)
def test_the_document_contains_the_tables_of_the_results(name, machine, count):
    document = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    results = read_json(run.RESULTS / f"{name}.json")
    title, *tables = run.table(results, run.measurements(quick=False)).split("\n\n")
    assert title == f"{machine}; torch 2.14.1"
    assert machine in document
    assert len(tables) == count
    for table in tables:
        assert table in document
