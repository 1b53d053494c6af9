"""The recipe laboratory: every run of a plan once, resumed after a kill, and tabulated from its file."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from customresnet.training.lr.bounds import LRRangeTest, choose_bounds
from experiments import lab, plain_loop
from tests.conftest import make_tree

ROOT = Path(__file__).parents[1]


def test_every_plan_names_flags_that_fit_parses() -> None:
    for name in lab.plans():
        cells = lab.read_plan(name)
        assert len({(cell.name, cell.seed) for cell in cells}) == len(cells)
        assert all(isinstance(cell.name, str) for cell in cells)


def test_the_committed_results_belong_to_their_plans_and_make_a_table() -> None:
    for path in lab.RESULTS.glob("*.jsonl"):
        planned = {(cell.name, cell.seed): cell for cell in lab.read_plan(path.stem)}
        for row in lab.read_results(path.stem):
            assert row["flags"] == " ".join(planned[row["cell"], row["seed"]].own)
        cells = {row["cell"] for row in lab.read_results(path.stem)} - {lab.LR_FIND}
        assert len(lab.table(path.stem).splitlines()) == (2 + len(cells) if cells else 1)


@pytest.mark.slow
def test_a_killed_plan_continues_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"from pathlib import Path; from experiments import lab; lab.RESULTS = Path({str(tmp_path)!r}); lab.main()"
    command = [sys.executable, "-c", script, "run", "smoke", "--work", str(tmp_path / "work")]
    results = tmp_path / "smoke.jsonl"
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while not results.is_file():
        assert child.poll() is None
        time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    subprocess.run(["pkill", "-KILL", "-s", str(child.pid)], check=False)  # its fit too
    before = results.read_text()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    rows = lab.read_results("smoke")
    assert [(row["cell"], row["seed"]) for row in rows] == [("low", 0), ("high", 0), ("low", 1), ("high", 1)]
    assert results.read_text().startswith(before)
    assert all(len(row["epochs"]) == 2 and row["pflop"] >= 0 for row in rows)
    table = lab.table("smoke")
    assert "| low | `--model.lr_max 1e-3 --model.lr_min 1e-4` | 2 |" in table
    accuracies = [row["result"]["test/acc"] for row in rows if row["cell"] == "low"]
    assert f"{100 * sum(accuracies) / 2:.2f}%" in table
    assert json.loads(before.splitlines()[0])["commit"]


def test_a_run_stopped_by_its_budget_is_not_finished(tmp_path: Path) -> None:
    version = tmp_path / "lightning_logs/lab/version_0"
    version.mkdir(parents=True)
    (version / "result.json").write_text('{"ended": "interrupted", "epochs": 1}')
    assert lab.read_finished(tmp_path) is None
    (version / "result.json").write_text('{"ended": "completed", "epochs": 2}')
    assert lab.read_finished(tmp_path) == {"ended": "completed", "epochs": 2}


def test_the_guide_to_learning_rates_shows_the_committed_results() -> None:
    guide = (ROOT / "docs/learning-rates.md").read_text(encoding="utf-8")
    assert lab.rules() in guide
    curves = lab.read_results("lr-find-width64")
    found = [choose_bounds(np.array(row["lrs"]), np.array(row["losses"]), LRRangeTest()) for row in curves]
    rows = {
        "LRMAX (halfway)": [each.lr_max for each in found],
        "LRMIN": [each.lr_min for each in found],
        **{rule: [each.candidates[rule] for each in found] for rule in ("edge/2", "steepest")},
    }
    for name, values in rows.items():
        cells = " | ".join(f"{value:.2e}" for value in values)
        assert f"| {name} | {cells} | {max(values) / min(values):.2f} |" in guide
    assert max(rows["LRMAX (halfway)"]) <= 1.5 * min(rows["LRMAX (halfway)"])


def test_the_plain_loop_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--root", str(make_tree(tmp_path / "tree", each=40)), "--width", "4", "--epochs", "2"]
    monkeypatch.setattr(plain_loop, "BATCH", 32)
    monkeypatch.setattr(sys, "argv", ["plain_loop", *words])
    plain_loop.main()
    row = json.loads(capsys.readouterr().out)
    assert len(row["test/acc"]) == 2
    assert (row["border"], row["head"], row["precision"]) == ("zeros", "zeros", "fp32")


def test_the_plain_loop_augments_as_the_default_recipe() -> None:
    torch.manual_seed(0)
    images = torch.arange(1, 1 + 64 * 3 * 32 * 32, dtype=torch.float32).view(64, 3, 32, 32)
    out = plain_loop.augmented(images, "zeros")
    assert all(int((image == 0).all(dim=0)[:, :].sum()) >= 64 for image in out)  # the hole, and perhaps the border
    inside = set(images[5].flatten().tolist()) | {0.0}
    assert set(out[5].flatten().tolist()) <= inside
    reflected = plain_loop.augmented(images, "reflect")
    assert all(64 * 3 <= int((image == 0).sum()) <= 64 * 3 for image in reflected)
