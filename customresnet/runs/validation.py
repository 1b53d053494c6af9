"""Check what a checkpoint, a weights file or a record contains before anything is built from it."""

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from customresnet.data.labelled_images import MAX_IMAGE_SIZE
from customresnet.models import build_network, network_spec
from customresnet.runs.kinds import (
    LIST,
    MAPPING,
    SWITCH,
    TEXT,
    DamagedError,
    Kind,
    check_bounds,
    check_like,
    check_values,
    is_plain,
    number,
    one_of,
    several,
    whole,
)
from customresnet.runtime.trust import refuse_foreign_code
from customresnet.schedules import POLICIES

PREFIX = "net."
"""Prefix of the network's weights in a checkpoint's state_dict."""


def _are_classes(value: Any) -> bool:
    names = isinstance(value, list | tuple) and all(isinstance(name, str) and name for name in value)
    return names and 2 <= len(value) == len(set(value))


LOADERS = Kind("a list of mappings", lambda value: LIST.accepts(value) and all(map(MAPPING.accepts, value)))
RATE = number(0, 1e12).optional

CONTENT = {
    "hyper_parameters": MAPPING,
    "preprocessing": MAPPING,
    "state_dict": MAPPING,
    "epoch": whole(0),
    "global_step": whole(0),
}
MORE = {
    "pytorch-lightning_version": Kind(
        "a version", lambda value: isinstance(value, str) and bool(re.fullmatch(r"\d+(\.\w+)+(\+[\w.]+)?", value))
    ),
    "scheduled_steps": whole(0).optional,
    "loops": MAPPING,
    "callbacks": MAPPING,
    "optimizer_states": LIST,
    "lr_schedulers": LIST,
}
OPTIONS = {
    "network": Kind("a name or a mapping", lambda value: isinstance(value, str | dict)),
    "num_classes": whole(2, 100_000),
    "width": whole(1, 4096).optional,
    "dropout": number(0, 1),
    "lr_max": RATE,
    "lr_min": RATE,
    "momentum": several(2, number(0, 1)).optional,
    "weight_decay": number(0, 1e12),
}
MORE_OPTIONS = {
    "policy": one_of(*POLICIES),
    "peak_epoch": RATE,
    "anneal": one_of("linear", "cos"),
    "final_div_factor": number(1, 1e300),
    "half_cycle": RATE,
    "cycle_mode": TEXT,
    "cycle_gamma": number(0, 1),
    "optimizer": one_of("adam", "sgd"),
    "decoupled": SWITCH,
    "beta2": number(0, 1),
    "label_smoothing": number(0, 1),
    "compile": Kind("true, false or auto", lambda value: value in (True, False, "auto")),
}
PREPROCESSING = {
    "classes": Kind("at least two different names", _are_classes),
    "mean": several(3, number(-1e6, 1e6)),
    "std": several(3, number(1e-6, 1e6)),
    "image_size": whole(32, MAX_IMAGE_SIZE),
    "source": TEXT,
}
"""What a checkpoint must contain, and what newer ones contain in addition."""

FIXED = ("eps", "weight_decay", "amsgrad", "maximize", "nesterov", "dampening", "initial_lr")
"""Options of an optimizer that never change."""
RECORDER, ADDED = "RunLog", ("images", "lr")
"""Name of the recorder's state in a checkpoint, and its entries that older ones lack."""
CHANGING = ("last_epoch", "_step_count", "_last_lr")
"""What a scheduler changes at each step."""


def check_checkpoint(checkpoint: Any) -> None:
    """Check all that this package reads of a checkpoint. ``check_like`` checks the state of optimizer and loops.

    Raises:
        DamagedError: A value is missing, or is none that a checkpoint may contain.
    """
    check_bounds(checkpoint)
    check_values(checkpoint, CONTENT, MORE)
    options, preprocessing = checkpoint["hyper_parameters"], checkpoint["preprocessing"]
    check_values(options, OPTIONS, MORE_OPTIONS, "hyper_parameters.")
    check_values(preprocessing, PREPROCESSING, {}, "preprocessing.")
    if len(preprocessing["classes"]) != options["num_classes"]:
        raise DamagedError(f"it names {len(preprocessing['classes'])} classes of {options['num_classes']}")
    for name, tensor in checkpoint["state_dict"].items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or not is_plain(tensor):
            raise DamagedError(f"state_dict.{name} is no dense tensor in memory")
        if not bool(torch.isfinite(tensor).all()):
            raise DamagedError(f"state_dict.{name} contains values that are not finite")
    network = network_spec(options["network"])
    if isinstance(network, str):
        _check_shapes(checkpoint["state_dict"], options)
    else:
        check_bounds(network)


def _check_shapes(state: Mapping[str, Tensor], options: Mapping[str, Any]) -> None:
    """Compare weights with the network that they are for, which is not built yet."""
    with torch.device("meta"):
        network = build_network(*(options[name] for name in ("network", "num_classes", "width", "dropout")))
    own = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
    expected = network.state_dict()
    for name in dict.fromkeys([*expected, *own]):
        shapes = [tuple(part[name].shape) if name in part else None for part in (own, expected)]
        kinds = [part[name].is_floating_point() for part in (own, expected) if name in part]
        if shapes[0] != shapes[1] or len(set(kinds)) > 1:
            found, needed = ("missing" if shape is None else shape for shape in shapes)
            raise DamagedError(
                f"its weights do not fit the network {options['network']} of width {options['width']}: "
                f"{name} is {found}, the network's {needed}"
            )


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
            if state["state"].get(key):
                _check_moments(state["state"][key], parameter, f"{where}.state.{key}", adam="betas" in group)
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
            check_values(saved, {}, {}, f"callbacks.{name}.")
            needed = {key: value for key, value in own.items() if key in saved or key not in ADDED}
            check_like(saved, needed, f"callbacks.{name.partition('{')[0]}")
    for row in checkpoint["callbacks"].get(RECORDER, {}).get("rows", []):
        check_values(row, {"epoch": number(0), "step": whole(0)}, {}, f"callbacks.{RECORDER}.rows.")
        if not all(isinstance(value, int | float) for value in row.values()):
            raise DamagedError(f"callbacks.{RECORDER}.rows contains a value that is no number")
    if saved := checkpoint.get("epoch_metrics"):
        check_values(saved, {}, {}, "epoch_metrics.")
        check_like(saved, metrics, "epoch_metrics")


def check_network_code(options: Mapping[str, Any]) -> None:
    """Raise a UserError if a checkpoint's or run's network is code that a file may not name."""
    if isinstance(spec := network_spec(options["network"]), dict):
        refuse_foreign_code({"network": spec}, "`ckpt_path`: the checkpoint")


def implausible(archive: zipfile.ZipFile, path: Path) -> str | None:
    """Why an archive cannot be a checkpoint: reading it would take far more memory than its size; None if it can."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "it contains compressed entries"
    too_large = sum(entry.file_size for entry in entries) > path.stat().st_size
    return "its entries are larger than the file" if too_large else None


def checksum(metadata: Mapping[str, str], state: Mapping[str, Tensor]) -> str:
    """A checksum of all that a weights file contains."""
    total = hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())
    for name, tensor in sorted(state.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
