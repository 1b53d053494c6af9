"""Train the contract and the recipes of the five reports alike, and compare them.

    python benchmarks/shootout.py --data.source folder --data.root cifar10.zip

Each trains for 6 epochs on the same 10,000 training images, its schedule scaled to them, and is tested on all test
images once, at the end. What is done is skipped, what was interrupted is gone on with: the same command resumes it.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from customresnet.cli import recipes
from customresnet.runs import folders as runs
from customresnet.runtime.files import write_atomically

RECIPES = ("contract", "eva4-s11", "eva7-s9", "era-s10-a", "era-s10-b", "advanced")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="All other flags go to fit.", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each run (default: %(default)s)")
    parser.add_argument("--train_size", type=int, default=10_000, help="training images (default: %(default)s)")
    parser.add_argument("--name", default="shootout", help="what the runs' names begin with (default: %(default)s)")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, choices=RECIPES, help="which (default: all)")
    options, flags = parser.parse_known_args()
    shootout = Shootout(options.name, options.epochs, options.train_size, flags)
    shootout.refuse_other_terms(parser)
    for recipe in options.recipes:
        shootout.train(recipe)
    command("compare", *(str(shootout.newest(recipe)) for recipe in options.recipes))


@dataclass(frozen=True)
class Shootout:
    """The terms that all recipes are trained on.

    Attributes:
        name: What their runs' names begin with.
        epochs: Epochs of each.
        train_size: Training images.
        flags: Others of fit.
    """

    name: str
    epochs: int
    train_size: int
    flags: list[str]

    def refuse_other_terms(self, parser: argparse.ArgumentParser) -> None:
        """Write the terms down, or compare them with those of the runs that are there."""
        terms, path = json.dumps(asdict(self), indent=1), Path(runs.LOGS) / f"{self.name}.json"
        if path.is_file() and path.read_text(encoding="utf-8") != terms:
            parser.error(f"{path} holds a shoot-out on other terms; give this one another --name")
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, terms)

    def train(self, recipe: str) -> None:
        """Train one recipe, or go on with it, unless it is done."""
        folder = self.newest(recipe)
        if folder and (folder / runs.RESULT).is_file():
            print(f"{recipe}: done, in {folder}", flush=True)
        elif folder and (folder / runs.CHECKPOINTS / runs.LAST).is_file():
            print(f"{recipe}: going on in {folder}", flush=True)
            command("fit", "--ckpt_path", str(folder), "--report", "false")
        else:
            print(f"{recipe}:", flush=True)
            command("fit", *self.recipe_flags(recipe), "--report", "false", *self.flags)

    def recipe_flags(self, recipe: str) -> list[str]:
        """A recipe on these terms: its peak lies at the same share of the run, the test images are looked at once."""
        flags = ["--trainer.run_name", f"{self.name}-{recipe}", "--trainer.max_epochs", str(self.epochs)]
        flags += ["--trainer.check_val_every_n_epoch", str(self.epochs), "--data.train_size", str(self.train_size)]
        if recipe == "contract":  # its bounds are found, its peak is a share of the run already
            return flags
        whole = recipes.read(recipes.path_of(recipe), f"--config {recipe}")
        peak = whole["model"]["peak_epoch"] * self.epochs / whole["trainer"]["max_epochs"]
        return ["--config", recipe, *flags, "--model.peak_epoch", str(peak)]

    def newest(self, recipe: str) -> Path | None:
        """The folder of a recipe's latest run."""
        folders = runs.versions(Path(), f"{self.name}-{recipe}")
        return folders[-1] if folders else None


def command(*words: str) -> None:
    """Run one of the project's commands; stop where it stops."""
    code = subprocess.run([sys.executable, "-m", "customresnet", *words]).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
