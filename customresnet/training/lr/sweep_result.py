"""The result of an LR sweep: its points, its file, its figure and the bounds it suggests."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customresnet.runs.kinds import LIST, MAPPING, SWITCH, DamagedError, Kind, check_values, number, whole
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import read_json, read_text, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "lr_sweep.json"
RATE = number(0, 1e12)
CONTENT = {
    "flags": MAPPING,
    "lrs": Kind("a list of positive numbers", lambda value: LIST.accepts(value) and all(map(RATE.accepts, value))),
    "steps": whole(1),
    "points": LIST,
}
POINT = {
    "lr": RATE,
    "train_acc": number(0, 1).optional,
    "train_loss": number(-1e300, 1e300).optional,
    "val_acc": number(0, 1).optional,
    "images": whole(1),
    "val_images": whole(0),
    "diverged": SWITCH,
}
"""What lr_sweep.json and each of its points contains."""


@dataclass(frozen=True)
class LRPoint:
    """The result of one learning rate.

    Attributes:
        lr: The learning rate.
        train_acc: Accuracy on the training batches of the last quarter of the steps, each before its step.
        train_loss: Mean loss of these batches.
        val_acc: Accuracy on the held-out images after training; None without held-out images.
        images: Number of training images behind ``train_acc``.
        val_images: Number of held-out images behind ``val_acc``.
        diverged: Whether the loss became infinite or NaN; accuracies and loss are then None.
    """

    lr: float
    train_acc: float | None
    train_loss: float | None
    val_acc: float | None
    images: int
    val_images: int = 0
    diverged: bool = False

    @property
    def score(self) -> float:
        """The accuracy that ranks points: validation if available, else training."""
        if self.diverged or self.train_acc is None:
            return -math.inf
        return self.train_acc if self.val_acc is None else self.val_acc


@dataclass
class LRSweepResult:
    """The points measured so far, by rising learning rate, and, when complete, the bounds they suggest.

    ``flags`` are all options that the points depend on, ``lrs`` all learning rates, and ``steps`` the steps at each.
    """

    flags: dict[str, Any]
    lrs: list[float]
    steps: int
    points: list[LRPoint]

    def add(self, point: LRPoint) -> None:
        self.points = sorted([*self.points, point], key=lambda p: p.lr)

    @property
    def left(self) -> list[float]:
        """Learning rates not measured yet."""
        done = {point.lr for point in self.points}
        return [lr for lr in self.lrs if lr not in done]

    @property
    def best(self) -> LRPoint | None:
        """The point with the highest accuracy; None if every point diverged."""
        best = max(self.points, key=lambda p: p.score, default=None)
        return None if best is None or best.diverged else best

    @property
    def lr_max(self) -> float | None:
        return self.best.lr if self.best else None

    @property
    def lr_min(self) -> float | None:
        return self.best.lr / 10 if self.best else None

    def doubts(self) -> list[str]:
        """Reasons to doubt the suggestion."""
        if self.best is None:
            return ["every learning rate diverged: lower `start` and `end`"]
        doubts = []
        scores = [p.score for p in self.points if not p.diverged]
        noise = 4 * math.sqrt(self.best.score * (1 - self.best.score) / (self.best.val_images or self.best.images))
        if len(scores) > 1 and max(scores) - min(scores) <= max(noise, 0.02):
            doubts.append(
                f"the curve is flat, {min(scores):.1%} to {max(scores):.1%}: its highest point may be chance; "
                "train longer (`steps`, `epochs`) or change the range (`start`, `end`, `spacing`)"
            )
        if self.best.lr == self.lrs[0]:
            doubts.append(f"the best point is the lowest learning rate tried: try a `start` below {self.best.lr:g}")
        if self.best.lr == self.lrs[-1]:
            doubts.append(f"the best point is the highest learning rate tried: try an `end` above {self.best.lr:g}")
        return doubts

    def save(self, folder: Path) -> None:
        """Write lr_sweep.json."""
        finished = not self.left
        content = {
            "flags": self.flags,
            "steps": self.steps,
            "lrs": self.lrs,
            "points": [asdict(point) for point in self.points],
            "finished": finished,
            "lr_max": self.lr_max if finished else None,
            "lr_min": self.lr_min if finished else None,
            "doubts": self.doubts() if finished else [],
        }
        write_atomically(folder / FILE, json.dumps(content, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "LRSweepResult":
        """Read lr_sweep.json.

        Raises:
            UserError: It is damaged.
        """
        try:
            saved = read_json(read_text(folder / FILE))
            check_values(saved, CONTENT, {})
            for point in saved["points"]:
                check_values(point, POINT, {})
            return cls(saved["flags"], saved["lrs"], saved["steps"], [LRPoint(**point) for point in saved["points"]])
        except (OSError, ValueError, TypeError, DamagedError) as error:
            raise UserError(f"`resume`: {folder / FILE} is damaged: {error}; delete it to start again") from error

    def refuse_other_flags(self, flags: dict[str, Any]) -> None:
        """Raise a UserError that names every flag that differs from the sweep's own."""
        differences = [
            f"{flag}: received {flags.get(flag)}, but the sweep was started with {self.flags.get(flag)}"
            for flag in {**self.flags, **flags}
            if self.flags.get(flag) != flags.get(flag)
        ]
        if differences:
            raise UserError(f"`resume`: {'; '.join(differences)}")

    def figure(self) -> "Figure":
        """Accuracy against learning rate, with the suggested bounds and the diverged points."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        good = [p for p in self.points if not p.diverged]
        lrs = [p.lr for p in good]
        measured = f"training, last quarter of {self.steps} steps"
        axes.plot(lrs, [p.train_acc or 0.0 for p in good], "o-", color="tab:blue", label=measured)
        if any(p.val_acc is not None for p in good):
            axes.plot(lrs, [p.val_acc or 0.0 for p in good], "s-", color="tab:orange", label="validation, after them")
        diverged = [p.lr for p in self.points if p.diverged]
        if diverged:
            axes.plot(diverged, [0.0] * len(diverged), "x", color="tab:red", markersize=9, label="diverged")
        if self.best:
            bounds = f"LRMIN {self.lr_min:.2e} to LRMAX {self.lr_max:.2e}"
            axes.axvspan(self.best.lr / 10, self.best.lr, color="tab:green", alpha=0.12, label=bounds)
            axes.axvline(self.best.lr, color="tab:green", linestyle=":")
        if self.flags["--spacing"] == "log":
            axes.set_xscale("log")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set(
            xlabel=f"learning rate ({self.flags['--spacing']} scale)",
            ylabel="accuracy",
            title=f"LR sweep: a fresh network for {self.steps} steps at each of {len(self.points)} learning rates",
        )
        highest = max((max(p.train_acc or 0.0, p.val_acc or 0.0) for p in good), default=1.0)
        axes.set_ylim(-0.02, 1.15 * highest)  # from 0, so that small differences look small
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        return figure
