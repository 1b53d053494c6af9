"""The triangular policy: the learning rate cycles between LRMIN and LRMAX; momentum mirrors it.

Source: Smith, "Cyclical learning rates for training neural networks", 2017, https://arxiv.org/abs/1506.01186.
"""

from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler

CycleMode = Literal["triangular", "triangular2", "exp_range"]

HALF_CYCLE_SHARE = 1 / 12
"""Default length of half a cycle: six cycles per run, 2 epochs up and 2 down in the default 24."""


@dataclass(frozen=True)
class Triangular:
    """Cycles of learning rate and momentum, each from LRMIN to LRMAX and back; the attributes are ImageClassifier's."""

    lr_max: float
    lr_min: float
    half_cycle: float | None = None
    cycle_mode: CycleMode = "triangular"
    cycle_gamma: float = 0.999
    momentum: tuple[float, float] | None = (0.85, 0.95)

    def __str__(self) -> str:
        gamma = f" ({self.cycle_gamma:g} per step)" if self.cycle_mode == "exp_range" else ""
        half = "1/12 of the run" if self.half_cycle is None else f"{self.half_cycle:g} epochs"
        return f"triangular policy, {self.cycle_mode}{gamma}, half-cycle of {half}"

    def half_cycle_steps(self, total_steps: int, steps_per_epoch: float) -> int:
        """Steps from the bottom of a cycle to its top."""
        half = HALF_CYCLE_SHARE * total_steps if self.half_cycle is None else self.half_cycle * steps_per_epoch
        return max(1, round(half))

    def scheduler(self, optimizer: Optimizer, total_steps: int, steps_per_epoch: float) -> LRScheduler:
        """torch's CyclicLR."""
        low, high = self.momentum or (0.0, 0.0)
        return CyclicLR(
            optimizer,
            base_lr=self.lr_min,
            max_lr=self.lr_max,
            step_size_up=self.half_cycle_steps(total_steps, steps_per_epoch),
            mode=self.cycle_mode,
            gamma=self.cycle_gamma if self.cycle_mode == "exp_range" else 1.0,
            cycle_momentum=self.momentum is not None,
            base_momentum=low,
            max_momentum=high,
        )
