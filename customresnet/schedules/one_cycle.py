"""The One Cycle policy: the learning rate rises to LRMAX at the peak epoch and falls back; momentum mirrors it.

Source: Smith, "A disciplined approach to neural network hyper-parameters", 2018, https://arxiv.org/abs/1803.09820.
"""

from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

Anneal = Literal["linear", "cos"]

PEAK_SHARE = 5 / 24
"""Default position of the peak: epoch 5 of the default recipe's 24."""


@dataclass(frozen=True)
class OneCycle:
    """One cycle of learning rate and momentum; the attributes are options of ImageClassifier.

    Without annihilation it ends where it started, at LRMIN.
    """

    lr_max: float
    lr_min: float
    peak_epoch: float | None = None
    anneal: Anneal = "linear"
    momentum: tuple[float, float] | None = (0.85, 0.95)
    final_div_factor: float = 1.0

    def __str__(self) -> str:
        shape = {"linear": "linear", "cos": "cosine"}[self.anneal]
        peak = "5/24 of the run" if self.peak_epoch is None else f"epoch {self.peak_epoch:g}"
        end = "no annihilation" if self.final_div_factor == 1 else f"annihilation to LRMIN/{self.final_div_factor:g}"
        return f"One Cycle, {shape}, peak at {peak}, {end}"

    def peak_step(self, total_steps: int, steps_per_epoch: float) -> int:
        """Index of the step that takes LRMAX, in a run of at least 3 steps."""
        peak = PEAK_SHARE * total_steps if self.peak_epoch is None else self.peak_epoch * steps_per_epoch
        return min(total_steps - 2, max(1, round(peak) - 1))

    def scheduler(self, optimizer: Optimizer, total_steps: int, steps_per_epoch: float) -> LRScheduler:
        """torch's OneCycleLR with its peak exactly at ``peak_step`` and its end at the last step.

        A run of fewer than 3 steps is too short for a cycle: it keeps LRMIN and the highest momentum.
        """
        if total_steps < 3:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] = self.lr_min
                if self.momentum:
                    _set_momentum(group, self.momentum[1])
            return LambdaLR(optimizer, lambda _: 1.0)
        low, high = self.momentum or (0.0, 0.0)
        return OneCycleLR(
            optimizer,
            max_lr=self.lr_max,
            total_steps=total_steps,
            # torch puts the peak at pct_start * total_steps - 1
            pct_start=(self.peak_step(total_steps, steps_per_epoch) + 1) / total_steps,
            anneal_strategy=self.anneal,
            cycle_momentum=self.momentum is not None,
            base_momentum=low,
            max_momentum=high,
            div_factor=self.lr_max / self.lr_min,
            final_div_factor=self.final_div_factor,
        )


def _set_momentum(group: dict, momentum: float) -> None:
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum
