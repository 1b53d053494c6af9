"""The museum of mistakes: what each classic mistake of this assignment costs, at a short budget.

    python benchmarks/mistakes.py --source folder --root cifar10.zip

Every exhibit but one is the same short run with one thing wrong, made wrong here, by overriding: the package has no
option for it. The one is a control: the other engine, which draws the same augmentations by other numbers. Each is
trained with several seeds; its cost is the mean difference from the runs without a mistake, seed by seed. Results go to
a JSON file after every run, and the same command goes on where it was stopped.
"""

import argparse
import json
import logging
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.data.datamodule import EngineName
from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.runtime.files import write_atomically
from customresnet.runtime.precision import device_kind, resolve_precision
from customresnet.training.callbacks.run_log import device_name

RESULTS = Path(__file__).parent / "results" / "mistakes.json"


class SoftmaxBeforeTheLoss(ImageClassifier):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = nn.Sequential(self.net, nn.Softmax(dim=1))


class AnotherHorizon(ImageClassifier):
    def configure_optimizers(self) -> Any:
        configured = super().configure_optimizers()
        steps = int(self.trainer.estimated_stepping_batches)
        policy = self.policy().scheduler(configured["optimizer"], 4 * steps, self.trainer.num_training_batches)
        configured["lr_scheduler"]["scheduler"] = policy
        return configured


class AnotherStdAtTestTime(CIFAR10DataModule):
    def transforms(self, *, augment: bool) -> AlbumentationsBackend:
        engine = super().transforms(augment=augment)
        if not augment:
            engine.std = (0.5, 0.5, 0.5)
        return engine


class RawMeanEngine(AlbumentationsBackend):
    def _cutout(self) -> Any:
        hole = super()._cutout()
        hole.fill = self.mean
        return hole


class RawMeanInTheHole(CIFAR10DataModule):
    def transforms(self, *, augment: bool) -> AlbumentationsBackend:
        right = super().transforms(augment=augment)
        return RawMeanEngine(right.augmentation, right.mean, right.std, right.image_size)


@dataclass(frozen=True)
class Exhibit:
    """One mistake.

    Attributes:
        words: What it is.
        model: What stands in the place of the classifier.
        data: What stands in the place of the data.
        options: What the classifier is called with beside the recipe.
        engine: What prepares the images.
        whole_batches: Whether short batches are left out.
    """

    words: str
    model: type[ImageClassifier] = ImageClassifier
    data: type[CIFAR10DataModule] = CIFAR10DataModule
    options: dict[str, Any] = field(default_factory=dict)
    engine: EngineName = "albumentations"
    whole_batches: bool = False


NONE = "no mistake"
EXHIBITS = {
    NONE: Exhibit("The recipe as it should be."),
    "control: batch engine": Exhibit(
        "No mistake: the same policy, drawn for whole batches; what it differs by is chance.", engine="batch"
    ),
    "softmax before the loss": Exhibit(
        "The network ends in a softmax, and cross-entropy takes it again: the loss cannot fall below 1.46.",
        model=SoftmaxBeforeTheLoss,
    ),
    "another std at test time": Exhibit(
        "Training images are divided by CIFAR-10's deviations, test images by 0.5.", data=AnotherStdAtTestTime
    ),
    "raw mean in the hole": Exhibit(
        "Cutout fills with the mean of the pixels although they are normalised by then.", data=RawMeanInTheHole
    ),
    "another horizon": Exhibit(
        "The scheduler is told of four times as many steps as there are: the run ends near LRMAX.", model=AnotherHorizon
    ),
    "dropped last batch": Exhibit("The last, short batch is left out, in training and in testing.", whole_batches=True),
    "annihilated schedule": Exhibit(
        "The learning rate goes down to LRMIN/10,000 instead of LRMIN.", options={"final_div_factor": 1e4}
    ),
}


def main() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="cifar10", help="where the images come from (default: %(default)s)")
    parser.add_argument("--root", type=Path, help="folder of the archive, or the image tree or .zip")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each exhibit (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each run (default: %(default)s)")
    parser.add_argument("--train_size", type=int, default=10_000, help="training images (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=256, help="images a step (default: %(default)s)")
    parser.add_argument("--width", type=int, default=32, help="channels of the first layer (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file (default: %(default)s)")
    args = parser.parse_args()
    budget = {name: getattr(args, name) for name in ("source", "epochs", "train_size", "batch_size", "width")}
    budget |= {"root": args.root and args.root.name, "device": device_name(torch.device(device_kind("auto")))}
    budget |= {"precision": resolve_precision("auto", "auto")[0], "torch": torch.__version__}
    results = json.loads(args.output.read_text()) if args.output.is_file() else {}
    if results.get("budget", budget) != budget:
        parser.error(f"--output {args.output} holds runs with another budget: {results['budget']}")
    results["budget"] = budget
    runs = {name: results.get("runs", {}).get(name, {}) for name in EXHIBITS}
    results["runs"] = runs
    for seed in range(args.seeds):
        for name in EXHIBITS:
            if str(seed) not in runs[name]:
                print(f"--- {name}, seed {seed}", flush=True)
                runs[name][str(seed)] = train(EXHIBITS[name], seed, args)
                args.output.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(args.output, json.dumps(results, indent=1))
    print(table(runs))


def train(exhibit: Exhibit, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """One short run; its last accuracies and losses."""
    trainer, model, data = prepare(exhibit, seed, args)
    trainer.fit(model, data)
    names = ("test/acc", "test/loss", "train/acc", "train/loss")
    return {name: float(trainer.callback_metrics[name]) for name in names}


def prepare(
    exhibit: Exhibit, seed: int, args: argparse.Namespace
) -> tuple[Trainer, ImageClassifier, CIFAR10DataModule]:
    """All that one run takes."""
    pl.seed_everything(seed, verbose=False)
    data = exhibit.data(
        source=args.source,
        root=args.root,
        batch_size=args.batch_size,
        train_size=args.train_size,
        engine=exhibit.engine,
        seed=seed,
    )
    model = exhibit.model(width=args.width, lr_max=2e-3, lr_min=1e-4, **exhibit.options)
    data.prepare_data()
    data.setup("fit")
    whole = {}
    if exhibit.whole_batches:
        whole["limit_train_batches"] = len(data.train_images) // args.batch_size
        whole["limit_val_batches"] = len(data.test_images) // args.batch_size
    trainer = Trainer(
        max_epochs=args.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        check_val_every_n_epoch=args.epochs,
        **whole,
    )
    return trainer, model, data


def table(runs: dict[str, dict[str, dict[str, float]]]) -> str:
    """The results as a Markdown table."""
    lines = ["| mistake | test accuracy | cost in points | what is wrong |", "|---|---|---|---|"]
    for name, exhibit in EXHIBITS.items():
        accuracies = {seed: 100 * figures["test/acc"] for seed, figures in runs[name].items()}
        costs = [100 * runs[NONE][seed]["test/acc"] - accuracy for seed, accuracy in accuracies.items()]
        cost = "" if name == NONE else spread(costs, "+.2f")
        lines.append(f"| {name} | {spread(list(accuracies.values()), '.2f')} % | {cost} | {exhibit.words} |")
    return "\n".join(lines)


def spread(values: list[float], form: str) -> str:
    """Mean ± standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{deviation}"


if __name__ == "__main__":
    main()
