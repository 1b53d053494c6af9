"""Train the default recipe and those of the five reports under equal conditions, and compare them.

    python -m experiments.shootout --data.source folder --data.root cifar10.zip

Each recipe trains for 6 epochs on the same 10,000 training images, with its schedule scaled to that length, and is
tested once, at the end, on all test images. The same command resumes an interrupted shoot-out: it skips finished runs.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from customresnet.cli.recipes import recipe_path
from customresnet.runs import folders
from customresnet.runtime.files import write_atomically
from customresnet.runtime.recipes import read_recipe

DEFAULT = "default"
RECIPES = (DEFAULT, "eva4-s11", "eva7-s9", "era-s10-a", "era-s10-b", "advanced")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="All other flags are passed to fit.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=6, help="epochs per run (default: %(default)s)")
    parser.add_argument("--train_size", type=int, default=10_000, help="training images (default: %(default)s)")
    parser.add_argument("--name", default="shootout", help="prefix of the run names (default: %(default)s)")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, choices=RECIPES, help="recipes (default: all)")
    options, flags = parser.parse_known_args()
    shootout = Shootout(options.name, options.epochs, options.train_size, flags)
    shootout.check_settings(parser)
    for recipe in options.recipes:
        shootout.train(recipe)
    run_command("compare", *(str(shootout.newest_run(recipe)) for recipe in options.recipes))


@dataclass(frozen=True)
class Shootout:
    """The settings that all recipes share.

    Attributes:
        name: Prefix of the run names.
        epochs: Epochs per run.
        train_size: Training images.
        flags: Further flags of ``fit``.
    """

    name: str
    epochs: int
    train_size: int
    flags: list[str]

    def check_settings(self, parser: argparse.ArgumentParser) -> None:
        """Record the settings, or exit with an error if existing runs of this name used others."""
        settings, path = json.dumps(asdict(self), indent=1), Path(folders.LOGS) / f"{self.name}.json"
        if path.is_file() and path.read_text(encoding="utf-8") != settings:
            parser.error(f"{path} holds a shoot-out with other settings; choose another --name")
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, settings)

    def train(self, recipe: str) -> None:
        """Train one recipe: skip a finished run, resume an unfinished one."""
        folder = self.newest_run(recipe)
        if folder and folders.is_finished(folder):
            print(f"{recipe}: already finished in {folder}", flush=True)
        elif folder and folders.last_checkpoint(folder).is_file():
            print(f"{recipe}: resuming in {folder}", flush=True)
            run_command("fit", "--ckpt_path", str(folder), "--report", "false")
        else:
            print(f"{recipe}:", flush=True)
            run_command("fit", *self.recipe_flags(recipe), "--report", "false", *self.flags)

    def recipe_flags(self, recipe: str) -> list[str]:
        """The flags that train a recipe for ``epochs``, with its peak at the same fraction of the run."""
        flags = ["--trainer.run_name", f"{self.name}-{recipe}", "--trainer.max_epochs", str(self.epochs)]
        flags += ["--trainer.check_val_every_n_epoch", str(self.epochs), "--data.train_size", str(self.train_size)]
        if recipe == DEFAULT:  # its peak is a fraction of the run already
            return flags
        config = read_recipe(recipe_path(recipe), f"--config {recipe}")
        peak = config["model"]["peak_epoch"] * self.epochs / config["trainer"]["max_epochs"]
        return ["--config", recipe, *flags, "--model.peak_epoch", str(peak)]

    def newest_run(self, recipe: str) -> Path | None:
        """The folder of a recipe's newest run."""
        versions = folders.versions(Path(), f"{self.name}-{recipe}")
        return versions[-1] if versions else None


def run_command(*words: str) -> None:
    """Run a command of the package, and exit with its code if it fails."""
    code = subprocess.run([sys.executable, "-m", "customresnet", *words]).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
