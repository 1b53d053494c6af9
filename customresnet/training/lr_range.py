"""LR range test: train with an LR that rises exponentially, and read both bounds off the loss.

Source: Smith, "Cyclical learning rates for training neural networks", 2017, https://arxiv.org/abs/1506.01186.
"""

import copy
import io
import json
import math
import sys
import tempfile
import warnings
from contextlib import nullcontext, redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.tuner import Tuner

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.errors import UserError
from customresnet.training.classifier import ImageClassifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Candidate = Literal["steepest", "valley", "minimum/10"]

MIN_POINTS = 10
BY_HAND = "pass both bounds by hand (--model.lr_max 3e-3 --model.lr_min 1e-4, say)"


@dataclass(frozen=True)
class LRRangeTest:
    """How the LR range test runs that sets --model.lr_max and --model.lr_min when they are not given.

    Args:
        steps: Optimizer steps, one learning rate each, evenly spaced on a log scale.
        min: First learning rate.
        max: Last learning rate.
        choose: What becomes LRMAX: where the smoothed loss falls fastest, half-way along its longest descent, or a
            tenth of the LR of its minimum.
    """

    steps: int = 100
    min: float = 1e-5
    max: float = 1.0
    choose: Candidate = "steepest"

    def check(self) -> None:
        if not 0 < self.min < self.max:
            raise UserError(
                f"--lr_find.min and --lr_find.max must be positive and rising; received {self.min:g} and {self.max:g}"
            )
        if self.steps < MIN_POINTS:
            raise UserError(f"--lr_find.steps must be at least {MIN_POINTS}; received {self.steps}")


@dataclass(frozen=True)
class LRRangeResult:
    """The measured curve and what was read off it.

    Attributes:
        lrs: Learning rate of each step.
        losses: Training loss of each step's batch, before the step.
        smoothed: The losses, smoothed along log LR.
        candidates: LRMAX by each rule, by the rule's name.
        lr_max: The chosen LRMAX.
        lr_min: The chosen LRMIN.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    candidates: dict[str, float]
    lr_max: float
    lr_min: float

    def set_missing_bounds(self, model: ImageClassifier) -> None:
        """Give the model the bounds that it was not given by hand."""
        lr_max = model.hparams["lr_max"] or self.lr_max
        lr_min = model.hparams["lr_min"] or min(self.lr_min, lr_max / 10)
        if lr_max < lr_min:
            raise UserError(
                f"--model.lr_min {lr_min:g} is above the LRMAX {lr_max:g} that the LR range test found; "
                "give --model.lr_max too"
            )
        model.hparams.update(lr_max=lr_max, lr_min=lr_min)

    def save(self, folder: Path) -> None:
        """Write lr_find.json and lr_find.png."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lr_find.json").write_text(json.dumps(asdict(self), indent=1))
        self.figure().savefig(folder / "lr_find.png", dpi=150)

    def figure(self) -> "Figure":
        """Loss against LR with both bounds and every candidate marked."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.semilogx(self.lrs, self.losses, color="0.75", linewidth=1, label="loss of each batch")
        axes.semilogx(self.lrs, self.smoothed, color="tab:blue", linewidth=2, label="smoothed")
        axes.axvspan(self.lr_min, self.lr_max, color="tab:green", alpha=0.12, label="LRMIN to LRMAX")
        axes.axvline(self.lr_min, color="tab:green", linestyle=":", label=f"LRMIN {self.lr_min:.2e}")
        for marker, (name, lr) in zip("osD", self.candidates.items(), strict=True):
            chosen = " = LRMAX" if lr == self.lr_max else ""
            height = np.interp(math.log(lr), np.log(self.lrs), self.smoothed)
            axes.semilogx(lr, height, marker, markersize=8, markeredgecolor="white", label=f"{name} {lr:.2e}{chosen}")
        low, high = min(self.losses), max(self.smoothed[0], np.quantile(self.losses, 0.8))
        axes.set_ylim(low - 0.05 * (high - low), high + 0.25 * (high - low))  # divergence would flatten the rest
        axes.set(xlabel="learning rate (log scale)", ylabel="training loss (cross-entropy)", title="LR range test")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left", fontsize="small")
        return figure


def run_lr_range_test(
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    test: LRRangeTest,
    **options: Any,
) -> LRRangeResult:
    """Run the test with Lightning's Tuner on a copy of the model in a Trainer of its own, so nothing is left behind.

    Args:
        model: The classifier to probe.
        datamodule: Its data.
        test: How the test runs.
        options: What that Trainer must share with the run's own, such as the precision.

    Raises:
        UserError: No bounds can be read off the curve; the message says what to pass.
    """
    test.check()
    probe = copy.deepcopy(model)
    probe.hparams.update(lr_max=None, lr_min=None)  # a plain optimizer: the Tuner brings the schedule
    datamodule.setup("fit")
    images = test.steps * options.get("accumulate_grad_batches", 1) * datamodule.batch_size
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning")
        trainer = pl.Trainer(
            # small data: as many epochs as the steps need, whatever the length of the run itself
            max_epochs=math.ceil(images / len(datamodule.train_images)) + 1,
            limit_val_batches=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=scratch,
            **{"accelerator": "cpu", "devices": 1, **options},
        )
        # the Tuner's bar is for a terminal: in a log file it would leave a line for every step
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
            finder = Tuner(trainer).lr_find(
                probe,
                datamodule=datamodule,
                min_lr=test.min,
                max_lr=test.max,
                num_training=test.steps,
                update_attr=False,  # the choice is ours
            )
    assert finder is not None
    lrs, losses = np.array(finder.results["lr"]), _unsmooth(finder.results["loss"])
    lrs = lrs[: len(losses)]
    finite = len(losses) if np.isfinite(losses).all() else int(np.argmin(np.isfinite(losses)))
    diverged = finite < len(losses) or losses[-1] > 2 * losses[0]
    if finite < test.steps and not diverged:
        raise UserError(f"the LR range test measured only {finite} of {test.steps} learning rates; {BY_HAND}")
    return choose_bounds(lrs[:finite], losses[:finite], test)


def _unsmooth(smoothed: list[float], beta: float = 0.98) -> np.ndarray:
    """The Tuner reports only a moving average whose correction is off by one step: take the true losses out of it."""
    steps = np.arange(1, len(smoothed) + 1)
    average = np.array(smoothed) * (1 - beta ** (steps + 1))
    return (average - beta * np.concatenate([[0.0], average[:-1]])) / (1 - beta)


def choose_bounds(lrs: np.ndarray, losses: np.ndarray, test: LRRangeTest) -> LRRangeResult:
    """Read LRMAX and LRMIN off a loss curve over exponentially rising learning rates.

    LRMAX is the chosen candidate. LRMIN is where the smoothed loss has first made a twentieth of its whole descent,
    but at most LRMAX/10 and at least LRMAX/1000.

    Raises:
        UserError: Too few points, a loss that diverges at once or never falls.
    """
    from scipy.ndimage import gaussian_filter1d

    if len(lrs) < MIN_POINTS:
        raise UserError(
            f"the LR range test diverged after {len(lrs)} of {test.steps} steps; "
            f"start lower (--lr_find.min {test.min / 100:g}) or {BY_HAND}"
        )
    # capped where it began: a loss that blows up would otherwise smear over its neighbours' minimum
    capped = np.minimum(losses, losses[0])
    smoothed = gaussian_filter1d(capped, sigma=max(1.0, 0.05 * test.steps), mode="nearest")
    log_lrs = np.log(lrs)
    bottom = int(np.argmin(smoothed))
    start = float(smoothed[0])
    noise = float(np.std(losses[: bottom + 1] - smoothed[: bottom + 1])) / math.sqrt(max(1.0, 0.05 * test.steps))
    if bottom < 2 or start - smoothed[bottom] < max(3 * noise, 0.02 * start):
        raise UserError(
            f"the LR range test saw no fall of the loss between LR {lrs[0]:g} and {lrs[-1]:g} (from {start:.3f} to "
            f"{smoothed[bottom]:.3f} at best); widen it (--lr_find.min, --lr_find.max, --lr_find.steps) or {BY_HAND}"
        )
    slope = np.gradient(smoothed, log_lrs)[: bottom + 1]
    candidates = {
        "steepest": float(lrs[int(np.argmin(slope))]),
        "valley": float(lrs[_valley(smoothed)]),
        "minimum/10": float(lrs[bottom] / 10),
    }
    lr_max = candidates[test.choose]
    fallen = start - 0.05 * (start - float(smoothed[bottom]))
    first = float(lrs[int(np.argmax(smoothed <= fallen))])
    lr_min = min(max(first, lr_max / 1000), lr_max / 10)
    return LRRangeResult(lrs.tolist(), losses.tolist(), smoothed.tolist(), candidates, lr_max, lr_min)


def _valley(losses: np.ndarray) -> int:
    """Index half-way along the longest decreasing subsequence of the loss, as fastai's ``valley`` picks it."""
    lengths = np.ones(len(losses), dtype=int)
    for i in range(1, len(losses)):
        below = lengths[:i][losses[:i] > losses[i]]
        lengths[i] = 1 + below.max() if len(below) else 1
    end = int(np.argmax(lengths))
    length = int(lengths[end])
    return end - length + 1 + length // 2
