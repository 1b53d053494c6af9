"""An ablation of mistakes: what each classic mistake of this assignment costs, at a short budget.

    python -m experiments.mistakes --source folder --root cifar10.zip

Each variant is the same short run with one mistake. The mistakes are implemented here by overriding methods, since the
package has no options for them. The control has no mistake, but uses the other transform backend, with its own random
stream. Each variant is trained with several seeds. Its cost is the mean difference in accuracy from the baseline,
paired by seed. Results are written to a JSON file after every run; the same command resumes an interrupted ablation.
"""

import argparse
import json
import logging
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from customresnet import CIFAR10DataModule, ImageClassifier, Trainer, fit
from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend, Step
from customresnet.data.transforms.selection import EngineName, TransformBackend
from customresnet.runtime.files import write_atomically
from customresnet.runtime.hardware import device_name
from customresnet.runtime.precision import device_kind, resolve_precision

RESULTS = Path(__file__).parent / "results" / "mistakes.json"


class SoftmaxBeforeLoss(ImageClassifier):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = nn.Sequential(self.net, nn.Softmax(dim=1))


class TooLongSchedule(ImageClassifier):
    def configure_optimizers(self) -> Any:
        configured = super().configure_optimizers()
        steps = 4 * int(self.trainer.estimated_stepping_batches)
        per_epoch = int(self.trainer.num_training_batches)
        configured["lr_scheduler"]["scheduler"] = self.policy().scheduler(configured["optimizer"], steps, per_epoch)
        return configured


class DifferentTestStd(CIFAR10DataModule):
    def transforms(self, *, augment: bool, device: torch.device | None = None) -> TransformBackend:
        backend = super().transforms(augment=augment, device=device)
        if not augment:
            backend.std = (0.5, 0.5, 0.5)
        return backend


class RawMeanBackend(AlbumentationsBackend):
    def steps(self) -> Iterator[Step]:
        for step in super().steps():
            hole = step.transform == "CoarseDropout"
            yield replace(step, options={**step.options, "fill": self.mean}) if hole else step


class RawMeanCutout(CIFAR10DataModule):
    def transforms(self, *, augment: bool, device: torch.device | None = None) -> TransformBackend:
        correct = super().transforms(augment=augment, device=device)
        return RawMeanBackend(correct.augmentation, correct.mean, correct.std, correct.image_size)


@dataclass(frozen=True)
class Variant:
    """The baseline with one mistake.

    Attributes:
        description: The mistake, in a sentence.
        model: Class of the classifier.
        data: Class of the data module.
        options: Further arguments of the classifier.
        engine: The transform backend.
        drop_last: Leave out the last, smaller batch of training and test images.
    """

    description: str
    model: type[ImageClassifier] = ImageClassifier
    data: type[CIFAR10DataModule] = CIFAR10DataModule
    options: dict[str, Any] = field(default_factory=dict)
    engine: EngineName = "albumentations"
    drop_last: bool = False


BASELINE = "no mistake"
VARIANTS = {
    BASELINE: Variant("The correct recipe."),
    "control: batch backend": Variant(
        "No mistake: the same policy with the other transform backend; any difference is chance.", engine="batch"
    ),
    "softmax before the loss": Variant(
        "The network ends in a softmax, and cross-entropy applies another one: the loss cannot fall below 1.46.",
        model=SoftmaxBeforeLoss,
    ),
    "different std at test time": Variant(
        "Training images are divided by CIFAR-10's standard deviation, test images by 0.5.", data=DifferentTestStd
    ),
    "cutout with the raw mean": Variant(
        "Cutout fills normalized images with the mean of the raw pixels.", data=RawMeanCutout
    ),
    "schedule too long": Variant(
        "The scheduler expects four times as many steps as there are: the run ends near LRMAX.", model=TooLongSchedule
    ),
    "dropped last batch": Variant("The last, smaller batch is left out, in training and in testing.", drop_last=True),
    "annihilated schedule": Variant(
        "The learning rate ends at LRMIN/10,000 instead of LRMIN.", options={"final_div_factor": 1e4}
    ),
}


def main() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="cifar10", help="source of the images (default: %(default)s)")
    parser.add_argument("--root", type=Path, help="folder of the archive, or the folder or .zip of images")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs per run (default: %(default)s)")
    parser.add_argument("--train_size", type=int, default=10_000, help="training images (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=256, help="images per step (default: %(default)s)")
    parser.add_argument("--width", type=int, default=32, help="channels of the first layer (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file (default: %(default)s)")
    args = parser.parse_args()
    budget = {name: getattr(args, name) for name in ("source", "epochs", "train_size", "batch_size", "width")}
    budget |= {"root": args.root and args.root.name, "device": device_name(torch.device(device_kind("auto")))}
    budget |= {"precision": resolve_precision("auto", "auto")[0], "torch": torch.__version__}
    results = json.loads(args.output.read_text()) if args.output.is_file() else {}
    if results.get("budget", budget) != budget:
        parser.error(f"--output {args.output} holds runs with a different budget: {results['budget']}")
    results["budget"] = budget
    runs = {name: results.get("runs", {}).get(name, {}) for name in VARIANTS}
    results["runs"] = runs
    for seed in range(args.seeds):
        for name in VARIANTS:
            if str(seed) not in runs[name]:
                print(f"--- {name}, seed {seed}", flush=True)
                runs[name][str(seed)] = train(VARIANTS[name], seed, args)
                args.output.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(args.output, json.dumps(results, indent=1))
    print(table(runs))


def train(variant: Variant, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train one variant; return the accuracies and losses of its last epoch."""
    trainer, model, data = prepare(variant, seed, args)
    fit(model, data, trainer, report=False)
    names = ("test/acc", "test/loss", "train/acc", "train/loss")
    return {name: float(trainer.callback_metrics[name]) for name in names}


def prepare(
    variant: Variant, seed: int, args: argparse.Namespace
) -> tuple[Trainer, ImageClassifier, CIFAR10DataModule]:
    """Build trainer, model and data of one run."""
    pl.seed_everything(seed, verbose=False)
    data = variant.data(
        source=args.source,
        root=args.root,
        batch_size=args.batch_size,
        train_size=args.train_size,
        engine=variant.engine,
        seed=seed,
    )
    model = variant.model(width=args.width, lr_max=2e-3, lr_min=1e-4, **variant.options)
    limits = {}
    if variant.drop_last:
        data.prepare_data()
        data.setup("fit")
        limits["limit_train_batches"] = len(data.train_images) // args.batch_size
        limits["limit_val_batches"] = len(data.test_images) // args.batch_size
    trainer = Trainer(
        max_epochs=args.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        check_val_every_n_epoch=args.epochs,
        **limits,
    )
    return trainer, model, data


def table(runs: dict[str, dict[str, dict[str, float]]]) -> str:
    """Format the results as a Markdown table."""
    lines = ["| variant | test accuracy | cost in points | description |", "|---|---|---|---|"]
    for name, variant in VARIANTS.items():
        accuracies = {seed: 100 * metrics["test/acc"] for seed, metrics in runs[name].items()}
        costs = [100 * runs[BASELINE][seed]["test/acc"] - accuracy for seed, accuracy in accuracies.items()]
        cost = "" if name == BASELINE else mean_and_deviation(costs, "+.2f")
        accuracy = mean_and_deviation(list(accuracies.values()), ".2f")
        lines.append(f"| {name} | {accuracy} % | {cost} | {variant.description} |")
    return "\n".join(lines)


def mean_and_deviation(values: list[float], form: str) -> str:
    """Format values as mean ± standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{deviation}"


if __name__ == "__main__":
    main()
