"""Recipes: the presets, those of the five course reports against the reports' own numbers, and what overrides what."""

import csv
from pathlib import Path

import pytest
import yaml

from customresnet.cli.recipes import PRESETS, recipe_path

LR = {  # first, highest and last
    "eva4-s11": (0.00527, 0.05273, 0.00527),
    "eva7-s9": (1.072e-4, 2.68e-3, 1.072e-8),
    "era-s10-a": (1.74e-5, 1.74e-3, 1.74e-7),
    "era-s10-b": (1.73e-3, 1.73e-2, 1.73e-3),
    "advanced": (4e-4, 1e-2, 4e-8),
}
PEAK = {"eva4-s11": 489, "eva7-s9": 469, "era-s10-a": 489, "era-s10-b": 489, "advanced": 5291}
STEPS = {"advanced": 90 * 196}  # 50,000 images in batches of 256; the others take 24 epochs of 98 steps
DIGITS = ["--data.source", "digits", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
SMALL = ["--model.width", "8", "--data.batch_size", "64", "--trainer.limit_val_batches", "1"]


@pytest.fixture(params=LR)
def recipe(request) -> str:
    return request.param


@pytest.mark.parametrize("name", sorted(p.stem for p in PRESETS.glob("*.yaml")))
def test_every_preset_sets_existing_flags(run, name):
    outcome = run("fit", "--config", name, "--print_config")
    assert outcome.code == 0
    assert yaml.safe_load(outcome.out)["trainer"]["run_name"] == name


def test_commands_take_the_flags_they_know_from_a_recipe(run):
    for command in ("validate", "test", "lr-find", "lr-sweep", "schedule"):
        outcome = run(command, "--config", "demo", "--print_config")
        assert outcome.code == 0, outcome.err
        assert yaml.safe_load(outcome.out).get("spacing") == ("log" if command == "lr-sweep" else None)


def test_the_schedule_is_the_reports(run, recipe):
    outcome = run("schedule", "--config", recipe)
    assert outcome.code == 0
    rows = list(csv.DictReader(Path("lightning_logs", recipe, "schedule.csv").read_text().splitlines()))
    rates = [float(row["lr"]) for row in rows]
    assert (rates[0], max(rates), rates[-1]) == pytest.approx(LR[recipe], rel=1e-6)
    assert rates.index(max(rates)) == PEAK[recipe]
    assert len(rates) == STEPS.get(recipe, 24 * 98)
    momentum = [float(row["momentum"]) for row in rows]
    low = 0.80 if recipe == "eva4-s11" else 0.85
    assert (momentum[0], min(momentum), momentum[-1]) == pytest.approx((0.95, low, 0.95), abs=1e-6)


def test_it_trains(run, recipe):
    """On two batches of the digits, with a schedule as short as the run."""
    outcome = run("fit", "--config", recipe, *DIGITS, *SMALL, "--model.peak_epoch", "0.5")
    assert outcome.code == 0, outcome.err
    network = "AdvancedNetOriginal" if recipe == "advanced" else "CustomResNet"
    assert f"network: {network}" in outcome.out
    words = {
        "eva4-s11": "Pad 4 (to 40x40, replicate) -> RandomCrop 32 -> HorizontalFlip p=0.5 -> Normalize mean=(0.5, 0.5",
        "era-s10-a": "-> ShiftScaleRotate shift=0.2 scale=0.2 rotate=15 p=0.5 (reflect_101) -> Normalize",
        "advanced": "training images: HorizontalFlip p=0.2 -> ShiftScaleRotate shift=0.1 scale=0.1 rotate=15 p=0.25 "
        "(reflect_101) -> ColorJitter 0.3/0.3/0.3/0.2 p=0.25 -> ToGray p=0.15 -> Normalize mean=(0.4914",
    }
    assert words.get(recipe, "Pad 4 (to 40x40, reflect_101) -> RandomCrop 32") in outcome.out
    cutout = "Cutout 16x16 p=0.5" if recipe == "advanced" else "Cutout 8x8 (filled"
    assert cutout in outcome.out


def test_fast_dev_run_ignores_a_peak_beyond_its_single_step(run):
    outcome = run("fit", "--config", "era-s10-b", "--data.source", "digits", *SMALL, "--trainer.fast_dev_run", "true")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    "words", [["--config", "eva4-s11", "--model.width", "8"], ["--model.width", "8", "--config=eva4-s11"]]
)
def test_flags_override_recipes_in_any_order(run, words):
    outcome = run("fit", *words, "--trainer.max_epochs", "3", "--print_config")
    assert outcome.code == 0, outcome.err
    config = yaml.safe_load(outcome.out)
    assert (config["model"]["width"], config["trainer"]["max_epochs"]) == (8, 3)
    assert config["model"]["optimizer"] == "sgd"
    before = run("fit", "--trainer.max_epochs", "3", "-c", "eva4-s11", "--print_config")
    assert yaml.safe_load(before.out)["trainer"]["max_epochs"] == 3


def test_the_first_line_of_a_reports_recipe_gives_its_accuracy(recipe):
    first_line = recipe_path(recipe).read_text().splitlines()[0]
    reached = {"eva4-s11": 91.40, "eva7-s9": 90.63, "era-s10-a": 92.64, "era-s10-b": 91.97, "advanced": 87.43}
    assert f"{reached[recipe]:.2f}% on CIFAR-10" in first_line
