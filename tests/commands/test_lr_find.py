"""The lr-find command: what it writes, repeated tests, and the recipe that it updates."""

from pathlib import Path

import yaml

from tests.conftest import SMALL, read_json


def test_writes_the_curve_and_leaves_nothing_else(run):
    outcome = run("lr-find", *SMALL, "--lr_find.steps", "30")
    assert outcome.code == 0
    folder = Path("lightning_logs/demo/version_0")
    assert {p.name for p in folder.iterdir() if "tfevents" not in p.name} == {"lr_find.json", "lr_find.png"}
    found = read_json(folder / "lr_find.json")
    assert f"--model.lr_max {found['lr_max']:.3g} --model.lr_min {found['lr_min']:.3g}" in outcome.out
    assert not [p for p in Path().rglob(".lr_find*")]


def test_repeat_suggests_the_median_of_several_seeds(run):
    outcome = run("lr-find", *SMALL, "--lr_find.steps", "40", "--repeat", "3", "--seed_everything", "5")
    assert outcome.code == 0, outcome.err
    folder = Path("lightning_logs/demo/version_0")
    found = read_json(folder / "lr_find.json")
    each = found["seeds"]
    assert [test["seed"] for test in each] == [5, 6, 7]
    assert len({tuple(test["losses"]) for test in each}) == 3  # each with other weights and another order
    assert found["lr_max"] == sorted(test["lr_max"] for test in each)[1]
    assert found["spread"]["lr_max"] == [min(t["lr_max"] for t in each), max(t["lr_max"] for t in each)]
    assert (folder / "lr_find.png").read_bytes().startswith(b"\x89PNG")
    run("lr-find", *SMALL, "--lr_find.steps", "40", "--seed_everything", "6")
    assert read_json(Path("lightning_logs/demo/version_1/lr_find.json"))["losses"] == each[1]["losses"]


def test_update_sets_the_bounds_in_a_recipe_for_fit_and_keeps_its_other_flags(run):
    Path("mine.yaml").write_text("trainer:\n  max_epochs: 1\nmodel:\n  width: 4\n  lr_max: 1.0\n")
    find = ["lr-find", "--config", "demo", "--data.batch_size", "128", "--lr_find.steps", "30", "--update"]
    outcome = run(*find, "mine.yaml", "--model.width", "4")
    assert "fit --config mine.yaml" in outcome.out
    found = read_json(Path("lightning_logs/demo/version_0/lr_find.json"))
    recipe = yaml.safe_load(Path("mine.yaml").read_text())
    bounds = {"lr_max": found["lr_max"], "lr_min": found["lr_min"]}
    assert recipe == {"trainer": {"max_epochs": 1}, "model": {"width": 4, **bounds}}
    outcome = run("fit", "--config", "demo", "--config", "mine.yaml")
    assert "LR range test" not in outcome.out
    assert read_json(Path("lightning_logs/demo/version_1/result.json"))["lr_max"] == found["lr_max"]
    outcome = run(*find, "new.yaml", "--model.width", "4")
    assert yaml.safe_load(Path("new.yaml").read_text()) == {"model": bounds}
