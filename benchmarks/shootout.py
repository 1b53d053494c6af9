"""Train the contract and the recipes of the five reports alike, and compare them.

    python benchmarks/shootout.py --data.source folder --data.root cifar10.zip

Each trains for 6 epochs on the same 10,000 training images, its schedule scaled to them, and is tested on all test
images once, at the end. What is done is skipped, what was interrupted is gone on with: the same command resumes it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from customresnet import recipes, runs

RECIPES = ("contract", "eva4-s11", "eva7-s9", "era-s10-a", "era-s10-b", "advanced")
LOGS = "shootout"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each run (default: %(default)s)")
    parser.add_argument("--train_size", type=int, default=10_000, help="training images (default: %(default)s)")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, choices=RECIPES, help="which (default: all)")
    options, flags = parser.parse_known_args()
    for recipe in options.recipes:
        train(recipe, options.epochs, options.train_size, flags)
    folders = [str(newest(recipe)) for recipe in options.recipes]
    command("compare", *folders)


def train(recipe: str, epochs: int, train_size: int, flags: list[str]) -> None:
    """Train one recipe, or go on with it, unless it is done."""
    folder = newest(recipe)
    if folder and (folder / runs.RESULT).is_file():
        print(f"{recipe}: done, in {folder}", flush=True)
        return
    print(f"{recipe}:", flush=True)
    if folder and (folder / runs.CHECKPOINTS / runs.LAST).is_file():
        command("fit", "--ckpt_path", str(folder), "--report", "false")
    else:
        command("fit", *recipe_flags(recipe, epochs), "--data.train_size", str(train_size), "--report", "false", *flags)


def recipe_flags(recipe: str, epochs: int) -> list[str]:
    """A recipe cut to ``epochs`` epochs: its peak lies at the same share of the run."""
    flags = ["--trainer.run_name", f"{LOGS}-{recipe}", "--trainer.max_epochs", str(epochs)]
    flags += ["--trainer.check_val_every_n_epoch", str(epochs)]  # the test images are looked at once
    if recipe == "contract":  # its bounds are found, its peak is a share of the run already
        return flags
    whole = recipes.read(recipes.path_of(recipe), f"--config {recipe}")
    peak = whole["model"]["peak_epoch"] * epochs / whole["trainer"]["max_epochs"]
    return ["--config", recipe, *flags, "--model.peak_epoch", str(peak)]


def newest(recipe: str) -> Path | None:
    """The folder of a recipe's latest run."""
    folders = runs.versions(Path(), f"{LOGS}-{recipe}")
    return folders[-1] if folders else None


def command(*words: str) -> None:
    """Run one of the project's commands; stop where it stops."""
    code = subprocess.run([sys.executable, "-m", "customresnet", *words]).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
