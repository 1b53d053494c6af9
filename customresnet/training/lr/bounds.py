"""Choose LRMIN and LRMAX from the losses of an LR range test, and plot them."""

import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from customresnet.runtime.errors import UserError
from customresnet.training.classifier import ImageClassifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Candidate = Literal["steepest", "valley", "minimum/10"]

MIN_POINTS = 10
BY_HAND = "pass both bounds yourself, for example `lr_max` 3e-3 and `lr_min` 1e-4"


@dataclass(frozen=True)
class LRRangeTest:
    """The LR range test, which finds `lr_max` and `lr_min` if they are not given.

    Args:
        steps: Optimizer steps, each with its own learning rate, evenly spaced on a log scale.
        min: First learning rate.
        max: Last learning rate.
        choose: The rule for LRMAX: where the smoothed loss falls fastest, halfway along its longest descent, or a
            tenth of the learning rate at its minimum.
    """

    steps: int = 100
    min: float = 1e-5
    max: float = 1.0
    choose: Candidate = "steepest"

    def check(self) -> None:
        if not 0 < self.min < self.max:
            raise UserError(
                f"`lr_find.min` must be positive and below `lr_find.max`; received {self.min:g} and {self.max:g}"
            )
        if self.steps < MIN_POINTS:
            raise UserError(f"`lr_find.steps` must be at least {MIN_POINTS}; received {self.steps}")


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
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    candidates: dict[str, float]
    lr_max: float
    lr_min: float

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
            **{name: [result.candidates[name] for result in self.results] for name in self.results[0].candidates},
        }
        return {name: [min(lrs), max(lrs)] for name, lrs in values.items()}

    def to_dict(self) -> dict[str, Any]:
        """The content of lr_find.json."""
        each = [{"seed": seed, **asdict(result)} for seed, result in zip(self.seeds, self.results, strict=True)]
        return {"lr_max": self.lr_max, "lr_min": self.lr_min, "spread": self.spread(), "seeds": each}

    def figure(self) -> "Figure":
        """The curves of all seeds, the median bounds, and every candidate."""
        return draw(self.results, self.lr_min, self.lr_max)


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
    for marker, color, name in zip("osD", ("tab:orange", "tab:red", "tab:purple"), results[0].candidates, strict=True):
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
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _median(lrs: list[float]) -> float:
    """The median; for an even number, the geometric mean of the middle two."""
    return math.exp(statistics.median(map(math.log, lrs))) if len(lrs) % 2 == 0 else statistics.median(lrs)


def choose_bounds(lrs: np.ndarray, losses: np.ndarray, test: LRRangeTest) -> LRRangeResult:
    """Choose LRMAX and LRMIN from a loss curve over exponentially rising learning rates.

    LRMAX is the candidate that ``test.choose`` names. LRMIN is the LR at which the smoothed loss has first fallen by a
    twentieth of its whole descent, limited to LRMAX/1000 ... LRMAX/10, and never below the tested range.

    Raises:
        UserError: There are too few points, or the loss diverges immediately or never falls.
    """
    from scipy.ndimage import gaussian_filter1d

    if len(lrs) < MIN_POINTS:
        raise UserError(
            f"the LR range test diverged after {len(lrs)} of {test.steps} steps; "
            f"start lower (`lr_find.min` {test.min / 100:g}) or {BY_HAND}"
        )
    initial = initial_loss(losses)
    typical = np.concatenate([[initial], losses[1:]])  # the edge counts most in the smoothing, and one batch may be odd
    # capped at the initial loss: a diverging loss would otherwise raise the smoothed minimum beside it
    capped = np.minimum(typical, initial)
    smoothed = gaussian_filter1d(capped, sigma=max(1.0, 0.05 * test.steps), mode="nearest")
    log_lrs = np.log(lrs)
    bottom = int(np.argmin(smoothed))
    start = float(smoothed[0])
    noise = float(np.std(typical[: bottom + 1] - smoothed[: bottom + 1])) / math.sqrt(max(1.0, 0.05 * test.steps))
    if bottom < 2 or start - smoothed[bottom] < max(3 * noise, 0.02 * start):
        raise UserError(
            f"the loss does not fall between LR {lrs[0]:g} and {lrs[-1]:g} of the LR range test (from {start:.3f} to "
            f"{smoothed[bottom]:.3f} at best); widen it (`lr_find.min`, `lr_find.max`, `lr_find.steps`) or {BY_HAND}"
        )
    slope = np.gradient(smoothed, log_lrs)[: bottom + 1]
    candidates = {
        "steepest": float(lrs[int(np.argmin(slope))]),
        "valley": float(lrs[_valley(smoothed)]),
        "minimum/10": float(max(lrs[bottom] / 10, lrs[0])),
    }
    lr_max = candidates[test.choose]
    fallen = start - 0.05 * (start - float(smoothed[bottom]))
    first = float(lrs[int(np.argmax(smoothed <= fallen))])
    lr_min = max(min(max(first, lr_max / 1000), lr_max / 10), float(lrs[0]))
    return LRRangeResult(lrs.tolist(), losses.tolist(), smoothed.tolist(), candidates, lr_max, lr_min)


def initial_loss(losses: np.ndarray) -> float:
    """The loss before training changes it: the median of the first five steps."""
    return float(np.median(losses[:5]))


def _valley(losses: np.ndarray) -> int:
    """Index halfway along the longest decreasing subsequence of the loss: fastai's ``valley``."""
    lengths = np.ones(len(losses), dtype=int)
    for i in range(1, len(losses)):
        below = lengths[:i][losses[:i] > losses[i]]
        lengths[i] = 1 + below.max() if len(below) else 1
    end = int(np.argmax(lengths))
    length = int(lengths[end])
    return end - length + 1 + length // 2
