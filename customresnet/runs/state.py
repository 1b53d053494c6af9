"""Check the state of a run in a checkpoint: its optimizer, its scheduler, its progress and its callbacks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from customresnet.runs.kinds import (
    LIST,
    MAPPING,
    DamagedError,
    Kind,
    check_like,
    check_values,
    is_plain,
    number,
    whole,
)

LOADERS = Kind("a list of mappings", lambda value: LIST.accepts(value) and all(map(MAPPING.accepts, value)))
SCORE = Kind("one number", lambda value: isinstance(value, Tensor) and is_plain(value) and value.numel() == 1)
SCORES = {
    **dict.fromkeys(("best_model_score", "current_score", "kth_value", "best_score"), SCORE.optional),
    "best_k_models": Kind(
        "a mapping to numbers", lambda value: MAPPING.accepts(value) and all(map(SCORE.accepts, value.values()))
    ),
}
"""What callbacks that watch a metric remember of it."""
FIXED = ("eps", "weight_decay", "amsgrad", "maximize", "nesterov", "dampening", "initial_lr")
"""Options of an optimizer that never change."""
RECORDER, ADDED = "RunLog", ("images", "lr")
"""Name of the recorder's state in a checkpoint, and its entries that older ones lack."""
CHANGING = ("last_epoch", "_step_count", "_last_lr")
"""What a scheduler changes at each step."""


def check_optimizer_state(checkpoint: Mapping[str, Any], optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Check the state of the optimizer and scheduler in a checkpoint. A wrong shape would crash the process.

    ``optimizer`` and ``scheduler`` are new, and will take that state.

    Raises:
        DamagedError: A value is missing, or does not fit.
    """
    if len(checkpoint["optimizer_states"]) != 1 or len(checkpoint["lr_schedulers"]) != 1:
        raise DamagedError("it must contain the state of one optimizer and one scheduler")
    state, where = checkpoint["optimizer_states"][0], "optimizer_states.0"
    check_values(state, {"state": MAPPING, "param_groups": LIST}, {}, f"{where}.")
    own = optimizer.state_dict()["param_groups"]
    check_like(state["param_groups"], [{"params": group["params"], "lr": group["lr"]} for group in own], where)
    for saved, group, real in zip(state["param_groups"], own, optimizer.param_groups, strict=True):
        fixed = {name: group[name] for name in FIXED if name in group}
        check_like(saved, fixed, f"{where}.param_groups", same=True)
        cycled = {name: group[name] for name in ("lr", "betas", "momentum") if name in group}
        check_like(saved, cycled, f"{where}.param_groups")
        for key, parameter in zip(saved["params"], real["params"], strict=True):
            if key in state["state"]:
                _check_moments(state["state"][key], parameter, f"{where}.state.{key}.", adam="betas" in group)
    known = {key for saved in state["state"] and state["param_groups"] for key in saved["params"]}
    if not state["state"].keys() <= known or (checkpoint["global_step"] and not state["state"]):
        raise DamagedError(f"{where}.state is not that of the network's parameters")
    saved, own = checkpoint["lr_schedulers"][0], scheduler.state_dict()
    changing = {name: own[name] for name in CHANGING if name in own}
    check_like(saved, changing, "lr_schedulers.0")
    constant = {name: value for name, value in own.items() if name not in CHANGING and name in saved}
    check_like(saved, constant, "lr_schedulers.0", same=True)
    if not 0 <= checkpoint["global_step"] - saved["last_epoch"] <= 1:
        raise DamagedError(f"its scheduler is at step {saved['last_epoch']} of {checkpoint['global_step']}")


def _check_moments(moments: Any, parameter: Tensor, where: str, *, adam: bool) -> None:
    """Check the state that an optimizer keeps about one parameter."""
    kind = Kind(
        f"finite numbers of shape {tuple(parameter.shape)}",
        lambda value: (
            isinstance(value, Tensor)
            and is_plain(value)
            and value.shape == parameter.shape
            and value.is_floating_point()
            and bool(torch.isfinite(value).all())
        ),
    )
    count = Kind("one number", lambda value: isinstance(value, Tensor) and value.numel() == 1 and bool(value >= 0))
    check_values(
        moments, {"step": count, "exp_avg": kind, "exp_avg_sq": kind} if adam else {"momentum_buffer": kind}, {}, where
    )


def check_progress(
    checkpoint: Mapping[str, Any], loop: Mapping[str, Any], callbacks: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """Check the progress of the run in a checkpoint, and the state of its callbacks and of the epoch's metrics.

    The others are those of the new run that will take that state.

    Raises:
        DamagedError: A value is missing, or does not fit.
    """
    state = {"loops": MAPPING, "callbacks": MAPPING, "optimizer_states": LIST, "lr_schedulers": LIST}
    check_values(checkpoint, state, {})
    check_like(checkpoint["loops"], {"fit_loop": {**loop, "state_dict": {}}}, "loops")
    check_values(checkpoint["loops"]["fit_loop"]["state_dict"], {}, {"combined_loader": LOADERS}, "loops.fit_loop.")
    for name, own in callbacks.items():
        if saved := checkpoint["callbacks"].get(name):
            check_values(saved, {}, SCORES, f"callbacks.{name.partition('{')[0]}.")
            needed = {key: value for key, value in own.items() if key in saved or key not in ADDED}
            check_like(saved, needed, f"callbacks.{name.partition('{')[0]}")
    for row in checkpoint["callbacks"].get(RECORDER, {}).get("rows", []):
        check_values(row, {"epoch": number(0), "step": whole(0)}, {}, f"callbacks.{RECORDER}.rows.")
        if not all(isinstance(value, int | float) for value in row.values()):
            raise DamagedError(f"callbacks.{RECORDER}.rows contains a value that is no number")
    if saved := checkpoint.get("epoch_metrics"):
        check_values(saved, {}, {}, "epoch_metrics.")
        check_like(saved, metrics, "epoch_metrics")
