"""The result of an LR range test with one or several seeds: its curve, its bounds, its figure."""

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from customresnet.runtime.errors import UserError
from customresnet.training.classifier import ImageClassifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LRRangeResult:
    """The measured curve and the bounds chosen from it.

    Attributes:
        lrs: Learning rate of each step.
        losses: Training loss of each step's batch, before the step.
        smoothed: The losses, smoothed over the log of the learning rate.
        candidates: LRMAX by rule.
        lr_max: The chosen LRMAX.
        lr_min: The chosen LRMIN.
        notes: Reasons to doubt them.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    candidates: dict[str, float]
    lr_max: float
    lr_min: float
    notes: list[str] = field(default_factory=list)

    def set_missing_bounds(self, model: ImageClassifier) -> None:
        """Set the bounds that the model was not given."""
        lr_max = model.hparams["lr_max"] or self.lr_max
        lr_min = model.hparams["lr_min"] or min(self.lr_min, lr_max / 10)
        if lr_max < lr_min:
            raise UserError(
                f"`lr_min` {lr_min:g} is above the LRMAX {lr_max:g} that the LR range test found; pass `lr_max` too"
            )
        model.hparams.update(lr_max=lr_max, lr_min=lr_min)

    def to_dict(self) -> dict[str, Any]:
        """The content of lr_find.json."""
        return asdict(self)

    def figure(self) -> "Figure":
        """Loss against LR, with both bounds and every candidate."""
        return draw([self], self.lr_min, self.lr_max)


@dataclass(frozen=True)
class RepeatedLRRange:
    """The same test with several seeds; the suggestion is the median."""

    seeds: list[int]
    results: list[LRRangeResult]

    def add(self, seed: int, result: LRRangeResult) -> None:
        self.seeds.append(seed)
        self.results.append(result)

    @property
    def lr_max(self) -> float:
        return _median([result.lr_max for result in self.results])

    @property
    def lr_min(self) -> float:
        return _median([result.lr_min for result in self.results])

    def spread(self) -> dict[str, list[float]]:
        """Lowest and highest value over the seeds, for both bounds and each candidate."""
        values = {
            "lr_max": [result.lr_max for result in self.results],
            "lr_min": [result.lr_min for result in self.results],
            **{name: [result.candidates[name] for result in self.results] for name in shared_candidates(self.results)},
        }
        return {name: [min(lrs), max(lrs)] for name, lrs in values.items()}

    def to_dict(self) -> dict[str, Any]:
        """The content of lr_find.json."""
        each = [{"seed": seed, **asdict(result)} for seed, result in zip(self.seeds, self.results, strict=True)]
        return {"lr_max": self.lr_max, "lr_min": self.lr_min, "spread": self.spread(), "seeds": each}

    def figure(self) -> "Figure":
        """The curves of all seeds, the median bounds, and every candidate."""
        return draw(self.results, self.lr_min, self.lr_max)


def shared_candidates(results: list[LRRangeResult]) -> list[str]:
    """The rules with a candidate in every result: none if a loss did not fall."""
    return [name for name in results[0].candidates if all(name in result.candidates for result in results)]


def draw(results: list[LRRangeResult], lr_min: float, lr_max: float) -> "Figure":
    """Loss against LR, raw and smoothed, for one or several tests, with bounds and candidates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    several = len(results) > 1
    for number, result in enumerate(results):
        first = number == 0
        axes.semilogx(result.lrs, result.losses, color="0.8", linewidth=0.8, label="loss of each batch" * first)
        name = f"smoothed, {len(results)} seeds" if several else "smoothed"
        axes.semilogx(result.lrs, result.smoothed, color="tab:blue", linewidth=1.5, label=name * first)
    axes.axvspan(lr_min, lr_max, color="tab:green", alpha=0.12, label=f"LRMIN {lr_min:.2e} to LRMAX {lr_max:.2e}")
    for edge in (lr_min, lr_max):
        axes.axvline(edge, color="tab:green", linestyle=":")
    colors = ("tab:green", "tab:brown", "tab:orange", "tab:red", "tab:purple")
    for marker, color, name in zip("v^osD", colors, shared_candidates(results), strict=False):
        lrs = [result.candidates[name] for result in results]
        heights = [np.interp(math.log(r.candidates[name]), np.log(r.lrs), r.smoothed) for r in results]
        label = f"{name} {min(lrs):.2e}" + (f" to {max(lrs):.2e}" if max(lrs) > min(lrs) else "")
        if [result.lr_max for result in results] == lrs:
            label += ", median is LRMAX" if several else " is LRMAX"
        axes.semilogx(lrs, heights, marker, color=color, markersize=8, markeredgecolor="white", label=label)
    lowest = min(min(result.losses) for result in results)
    highest = max(max(result.smoothed[0], float(np.quantile(result.losses, 0.8))) for result in results)
    height = highest - lowest
    axes.set_ylim(lowest - 0.05 * height, highest + 0.25 * height)  # a diverging loss would hide the rest
    axes.set(xlabel="learning rate (log scale)", ylabel="training loss (cross-entropy)", title="LR range test")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def _median(lrs: list[float]) -> float:
    """The median; for an even number, the geometric mean of the middle two."""
    return math.exp(statistics.median(map(math.log, lrs))) if len(lrs) % 2 == 0 else statistics.median(lrs)
