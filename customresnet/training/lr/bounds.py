"""The options of the LR range test, and the rules that choose LRMIN and LRMAX from its losses."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from customresnet.runtime.errors import UserError
from customresnet.training.lr.range_result import LRRangeResult

Candidate = Literal["halfway", "edge/2", "steepest", "valley", "minimum/10"]

MIN_POINTS = 10
USUAL = {"adam": 1e-3, "sgd": 1e-2}
"""A usual learning rate of each optimizer (Adam's is torch's default): LRMAX if the loss does not fall."""
BY_HAND = "pass both bounds yourself, for example `lr_max` 3e-3 and `lr_min` 1e-4"


@dataclass(frozen=True)
class LRRangeTest:
    """The LR range test, which finds `lr_max` and `lr_min` if they are not given.

    Args:
        steps: Optimizer steps, each with its own learning rate, evenly spaced on a log scale.
        min: First learning rate.
        max: Last learning rate.
        choose: The rule for LRMAX. halfway: on the log scale, between the optimizer's usual learning rate and the
            edge, where the loss first rises again; half the edge; where the loss falls fastest; halfway along its
            longest descent; or a tenth of the learning rate at its minimum.
    """

    steps: int = 100
    min: float = 1e-5
    max: float = 1.0
    choose: Candidate = "halfway"

    def check(self) -> None:
        if not 0 < self.min < self.max:
            raise UserError(
                f"`lr_find.min` must be positive and below `lr_find.max`; received {self.min:g} and {self.max:g}"
            )
        if self.steps < MIN_POINTS:
            raise UserError(f"`lr_find.steps` must be at least {MIN_POINTS}; received {self.steps}")


def choose_bounds(lrs: np.ndarray, losses: np.ndarray, test: LRRangeTest, usual: float = 1e-3) -> LRRangeResult:
    """Choose LRMAX and LRMIN from a loss curve over exponentially rising learning rates.

    LRMAX is the candidate that ``test.choose`` names. LRMIN is the LR at which the smoothed loss has first fallen by a
    twentieth of its whole descent, limited to LRMAX/1000 ... LRMAX/10, and never below the tested range. If the loss
    never falls, LRMAX is ``usual``, the optimizer's usual learning rate, and ``notes`` say so.

    Raises:
        UserError: The loss diverges immediately.
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
        note = (
            f"the loss does not fall between LR {lrs[0]:g} and {lrs[-1]:g} (from {start:.3f} to {smoothed[bottom]:.3f} "
            f"at best), so LRMAX is only a usual value; widen the LR range test (`lr_find.min`, `lr_find.max`, "
            f"`lr_find.steps`) or {BY_HAND}"
        )
        return LRRangeResult(lrs.tolist(), losses.tolist(), smoothed.tolist(), {}, usual, usual / 30, [note])
    slope = np.gradient(smoothed, log_lrs)[: bottom + 1]
    edge = float(lrs[_edge(typical, test.steps)])
    candidates = {
        "halfway": min(max(math.sqrt(usual * edge), float(lrs[0])), edge),
        "edge/2": max(edge / 2, float(lrs[0])),
        "steepest": float(lrs[int(np.argmin(slope))]),
        "valley": float(lrs[_valley(smoothed)]),
        "minimum/10": float(max(lrs[bottom] / 10, lrs[0])),
    }
    lr_max, notes = candidates[test.choose], []
    ratio = max(candidates.values()) / min(candidates.values())
    if ratio > 10:
        notes.append(f"the rules differ by a factor of {ratio:.0f}; compare learning rates by training: lr-sweep")
    fallen = start - 0.05 * (start - float(smoothed[bottom]))
    first = float(lrs[int(np.argmax(smoothed <= fallen))])
    lr_min = max(min(max(first, lr_max / 1000), lr_max / 10), float(lrs[0]))
    return LRRangeResult(lrs.tolist(), losses.tolist(), smoothed.tolist(), candidates, lr_max, lr_min, notes)


def _edge(losses: np.ndarray, steps: int) -> int:
    """Index at which the loss has first risen by a fifth of its descent so far; the lowest loss if it never rises.

    The running median ignores single odd batches and, unlike a Gaussian, keeps the edge where it is.
    """
    from scipy.ndimage import median_filter

    median = median_filter(losses, size=2 * round(0.04 * steps) + 1, mode="nearest")
    lowest = np.minimum.accumulate(median)
    descent = median[0] - lowest
    risen = (median > lowest + 0.2 * descent) & (descent > 0.1 * (median[0] - lowest.min()))
    return int(np.argmax(risen)) if risen.any() else int(np.argmin(median))


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
