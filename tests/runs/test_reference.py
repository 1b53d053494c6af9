"""The reference run in the repository: complete, readable by the current code, and quoted correctly."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from customresnet import LRRangeTest, OneCycle
from customresnet.schedules.schedule import Schedule
from customresnet.training.lr.bounds import choose_bounds
from tests.conftest import read_json

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "lightning_logs/reference"


def test_its_config_is_still_valid(run):
    outcome = run("fit", "--config", str(REFERENCE / "config.yaml"), "--print_config")
    assert outcome.code == 0
    config, result = yaml.safe_load(outcome.out), read_json(REFERENCE / "result.json")
    assert config["trainer"]["max_epochs"] == result["epochs"] == 24
    assert config["model"]["lr_max"] == result["lr_max"]
    assert config["model"]["lr_min"] == result["lr_min"]


def test_its_bounds_follow_from_its_curve():
    found = read_json(REFERENCE / "lr_find.json")
    again = choose_bounds(np.array(found["lrs"]), np.array(found["losses"]), LRRangeTest(choose="steepest"))
    assert (again.lr_max, again.lr_min) == (found["lr_max"], found["lr_min"])
    assert {name: again.candidates[name] for name in found["candidates"]} == pytest.approx(found["candidates"])


def test_its_metrics_agree_with_its_schedule_and_result():
    result = read_json(REFERENCE / "result.json")
    rows = list(csv.DictReader((REFERENCE / "metrics.csv").open()))
    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    rates = Schedule.from_policy(OneCycle(result["lr_max"], result["lr_min"]), adam, 2352, 98).lr
    assert [int(row["step"]) for row in rows] == [98 * epoch for epoch in range(1, 25)]
    assert [float(row["lr"]) for row in rows] == pytest.approx([rates[98 * epoch - 1] for epoch in range(1, 25)])
    assert float(rows[-1]["test/acc"]) == result["test/acc"]


def test_the_readme_quotes_it():
    result, readme = read_json(REFERENCE / "result.json"), (ROOT / "README.md").read_text()
    assert f"**{result['test/correct'] / 100:.2f}%** ({result['test/correct']:,} of 10,000" in readme
    for name in ("lr_max", "lr_min"):
        assert f"{result[name]:.2e}".replace("e-0", "e-") in readme
