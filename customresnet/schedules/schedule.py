"""The learning rate and momentum of every step of a run, computed before training."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from customresnet.runtime.files import as_csv, write_atomically
from customresnet.schedules import Policy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Schedule:
    """The learning rate and momentum (beta1 for Adam) of each step of a run.

    ``assumed`` are the bounds that were neither given nor measured; an assumed LRMAX is 1.
    """

    policy: Policy
    steps_per_epoch: int
    lr: list[float]
    momentum: list[float]
    momentum_name: str
    assumed: tuple[str, ...] = ()

    @classmethod
    def from_policy(
        cls, policy: Policy, optimizer: Optimizer, total_steps: int, steps_per_epoch: int, assumed: tuple[str, ...] = ()
    ) -> "Schedule":
        """Step the scheduler that training uses through the whole run; do not use ``optimizer`` afterward."""
        scheduler = policy.scheduler(optimizer, total_steps, steps_per_epoch)
        group = optimizer.param_groups[0]
        lr, momentum = [], []
        for _ in range(total_steps):
            lr.append(float(group["lr"]))
            momentum.append(momentum_of(group))
            optimizer.step()
            scheduler.step()
        name = "beta1" if "betas" in group else "momentum"
        return cls(policy, steps_per_epoch, lr, momentum, name, assumed)

    def rows(self) -> list[dict[str, float]]:
        """One row per step: step (from 0), epoch (from 1), lr, momentum."""
        return [
            {"step": step, "epoch": step // self.steps_per_epoch + 1, "lr": lr, "momentum": momentum}
            for step, (lr, momentum) in enumerate(zip(self.lr, self.momentum, strict=True))
        ]

    def save(self, folder: Path) -> None:
        """Write schedule.csv and schedule.png."""
        write_atomically(folder / "schedule.csv", as_csv(self.rows()))
        self.figure().savefig(folder / "schedule.png", dpi=150)

    def lines(self) -> list[str]:
        """The schedule in words."""
        peak, last = self.lr.index(max(self.lr)), len(self.lr) - 1
        unit = " x LRMAX" if "LRMAX" in self.assumed else ""
        points = [
            f"step {step:,} (epoch {step // self.steps_per_epoch + 1}): LR {self.lr[step]:.3g}{unit}, "
            f"{self.momentum_name} {self.momentum[step]:.3g}"
            for step in dict.fromkeys((0, peak, last))
        ]
        assumed = [f"assumed: LRMIN is LRMAX/10{', LRMAX is not known yet' if unit else ''}"] if self.assumed else []
        return [f"{self.policy}: {len(self.lr):,} steps, {self.steps_per_epoch:,} per epoch", *points, *assumed]

    def figure(self) -> "Figure":
        """LR and momentum against step and epoch, with LRMIN, LRMAX, the peak and the end."""
        from matplotlib.figure import Figure

        steps, per_epoch = len(self.lr), self.steps_per_epoch
        relative = "LRMAX" in self.assumed
        figure = Figure(figsize=(8, 4.8), layout="constrained")
        axes = figure.subplots()
        axes.set_title(f"{self.policy}: {steps / per_epoch:.4g} epochs of {per_epoch:,} steps", fontsize="medium")
        axes.plot(self.lr, color="tab:blue", linewidth=2, label="learning rate")
        unit = " (relative to LRMAX)" if relative else ""
        axes.set(xlabel="optimizer step", ylabel=f"learning rate{unit}", ylim=(0, 1.08 * self.policy.lr_max))
        axes.yaxis.set_major_formatter(lambda lr, _: f"{lr:g}")
        for marker, name, step in (("o", "peak", self.lr.index(max(self.lr))), ("s", "end", steps - 1)):
            label = f"{name}: step {step:,}, epoch {step // per_epoch + 1}, LR {self.lr[step]:.3g}"
            axes.plot(step, self.lr[step], marker, color="tab:blue", clip_on=False, label=label)
        for name, lr, color in (("LRMAX", self.policy.lr_max, "tab:red"), ("LRMIN", self.policy.lr_min, "tab:green")):
            assumed = " (assumed)" if name == "LRMIN" and name in self.assumed else ""
            value = "= LRMAX/10" if assumed else f"{lr:.3g}"
            label = name if relative and name == "LRMAX" else f"{name} {value}{assumed}"
            axes.axhline(lr, color=color, linestyle=":", linewidth=1.2, label=label)
        functions = (lambda step: step / per_epoch, lambda epoch: epoch * per_epoch)
        axes.secondary_xaxis("top", functions=functions).set_xlabel("epoch")
        right = axes.twinx()
        right.plot(self.momentum, color="tab:orange", linestyle="--", label=self.momentum_name)
        low, high = min(self.momentum), max(self.momentum)
        margin = max(0.1 * (high - low), 0.05 * (high == low))
        right.set(ylabel=f"momentum ({self.momentum_name})", ylim=(low - margin, high + margin))
        figure.legend(loc="outside lower center", ncols=3, fontsize="small")
        return figure


def momentum_of(group: dict[str, Any]) -> float:
    """The momentum of an optimizer's parameter group; beta1 for Adam."""
    return float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))
