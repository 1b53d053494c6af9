"""Check what a checkpoint, a weights file or a record contains before anything is built from it."""

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from customresnet.data.labelled_images import MAX_IMAGE_SIZE
from customresnet.models import build_network, network_spec
from customresnet.runs.kinds import (
    LIST,
    MAPPING,
    NAMED,
    SWITCH,
    TEXT,
    DamagedError,
    Kind,
    check_bounds,
    check_values,
    is_plain,
    number,
    one_of,
    several,
    whole,
)
from customresnet.runtime.trust import refuse_foreign_code
from customresnet.schedules import POLICIES
from customresnet.schedules.triangular import CycleMode

PREFIX = "net."
"""Prefix of the network's weights in a checkpoint's state_dict."""


def _are_classes(value: Any) -> bool:
    names = isinstance(value, list | tuple) and all(isinstance(name, str) and name for name in value)
    return names and 2 <= len(value) == len(set(value))


RATE = number(0, 1e12).optional

CONTENT = {
    "hyper_parameters": NAMED,
    "preprocessing": NAMED,
    "state_dict": NAMED,
    "epoch": whole(0),
    "global_step": whole(0),
}
MORE = {
    "pytorch-lightning_version": Kind(
        "a version", lambda value: isinstance(value, str) and bool(re.fullmatch(r"\d+(\.\w+)+(\+[\w.]+)?", value))
    ),
    "scheduled_steps": whole(0).optional,
    "loops": MAPPING,
    "callbacks": NAMED,
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
    "cycle_mode": one_of(*get_args(CycleMode)),
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

COUNT, FIGURE = whole(0).optional, number(-1e12, 1e12).optional
NAME = Kind("a text", lambda value: isinstance(value, str) and value.isprintable())
RESULT = {
    **{f"{stage}/{name}": FIGURE for stage in ("train", "val", "test") for name in ("loss", "acc")},
    **dict.fromkeys(("test/correct", "test/images", "epochs", "steps", "planned_steps", "parameters", "seed"), COUNT),
    **dict.fromkeys(("seconds", "images_per_second", "lr_max", "lr_min"), FIGURE),
    **dict.fromkeys(("ended", "engine", "precision", "device"), NAME),
    "versions": MAPPING,
}
CONFIG = dict.fromkeys(("trainer", "model", "data"), MAPPING)
DATA = {
    **dict.fromkeys(("batch_size", "val_size", "train_size"), COUNT),
    **dict.fromkeys(("source", "root"), NAME.optional),
    "augment": MAPPING,
    "test_share": number(0, 1).optional,
}
"""What result.json and config.yaml contain, and the data in it."""


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


def usable(record: str, content: dict[str, Any]) -> dict[str, Any]:
    """A run's config or result without the values that nothing can be done with."""
    kinds = {"config": CONFIG, "result": RESULT}.get(record, {})
    kept = {name: value for name, value in content.items() if name not in kinds or kinds[name].accepts(value)}
    if "data" in kept and record == "config":
        data = kept["data"].items()
        kept["data"] = {name: value for name, value in data if name not in DATA or DATA[name].accepts(value)}
    return kept


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
