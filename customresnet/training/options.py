"""Check the options of a classifier, and compare a run's options with its checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.models import network_spec
from customresnet.runtime.errors import UserError
from customresnet.schedules import POLICIES

OptimizerName = Literal["adam", "sgd"]

NETWORK_OPTIONS = ("network", "width", "num_classes")
SCHEDULE_OPTIONS = tuple(dict.fromkeys(field.name for policy in POLICIES.values() for field in fields(policy)))
OPTIMIZER_OPTIONS = ("policy", *SCHEDULE_OPTIONS, "optimizer", "weight_decay", "decoupled", "beta2", "label_smoothing")


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a UserError if an option of an ImageClassifier is invalid."""
    lr_max, lr_min, momentum = options["lr_max"], options["lr_min"], options["momentum"]
    for name in ("lr_max", "lr_min", "peak_epoch", "half_cycle"):
        value = options[name]
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UserError(f"`{name}` must be positive; received {value}")
    if lr_max is not None and lr_min is not None and lr_max < lr_min:
        raise UserError(f"`lr_max` {lr_max:g} is below `lr_min` {lr_min:g}")
    if momentum is not None and not 0 <= momentum[0] <= momentum[1] < 1:
        raise UserError(f"`momentum` must be a lowest and a highest value, in [0, 1); received {list(momentum)}")
    if not 1 <= options["final_div_factor"] < math.inf:
        raise UserError(f"`final_div_factor` must be at least 1; received {options['final_div_factor']}")
    if not 0 < options["cycle_gamma"] <= 1:
        raise UserError(f"`cycle_gamma` must be above 0 and at most 1; received {options['cycle_gamma']}")
    if options["weight_decay"] < 0:
        raise UserError(f"`weight_decay` must be at least 0; received {options['weight_decay']}")
    for name in ("beta2", "label_smoothing"):
        if not 0 <= options[name] < 1:
            raise UserError(f"`{name}` must be at least 0 and below 1; received {options[name]}")
    if options["decoupled"] and options["optimizer"] != "adam":
        raise UserError(f"`decoupled` weight decay needs `optimizer` adam; received {options['optimizer']}")
    _refuse_options_of_other_policies(options)


def _refuse_options_of_other_policies(options: Mapping[str, Any]) -> None:
    own = {field.name for field in fields(POLICIES[options["policy"]])}
    for other, policy in POLICIES.items():
        for field in fields(policy):
            if field.name not in own and options[field.name] != field.default:
                raise UserError(
                    f"`{field.name}` {options[field.name]} belongs to `policy` {other}; "
                    f"received `policy` {options['policy']}"
                )


def check_schedule(options: Mapping[str, Any], epochs: float) -> None:
    """Raise a UserError if a run of ``epochs`` has no end, nothing to train, or never reaches LRMAX."""
    if not math.isfinite(epochs):
        raise UserError("the learning-rate policy needs the length of the run: pass `max_epochs` or `max_steps`")
    if epochs <= 0:
        raise UserError("there is nothing to train: `max_epochs` or `max_steps` is 0")
    for name in ("peak_epoch", "half_cycle"):
        value = options[name]
        if value is not None and value > epochs:
            raise UserError(
                f"`{name}` {value:g} is beyond the run of {epochs:g} epochs (`max_epochs`, `max_steps`): "
                "LRMAX would never be reached"
            )


def check_same_options(saved: Mapping[str, Any], own: Mapping[str, Any], *, resumed: bool) -> None:
    """Raise a UserError if a checkpoint was trained with another network or, to be resumed, another optimizer.

    ``saved`` are the checkpoint's options, of which an older one has fewer, and ``own`` are those of this run.
    """
    saved = {**saved, "network": network_spec(saved["network"])}
    for name in NETWORK_OPTIONS + (OPTIMIZER_OPTIONS if resumed else ()):
        if name in saved:
            refuse_contradiction(f"`{name}`", saved[name], own[name])


def check_same_data(saved: Preprocessing, own: Preprocessing) -> None:
    """Raise a UserError if a checkpoint was trained on other classes, or on images prepared in another way."""
    for name in ("classes", "mean", "std", "image_size"):
        parameter = f"the classes of `source` {own.source}" if name == "classes" else f"`{name}`"
        refuse_contradiction(parameter, getattr(saved, name), getattr(own, name))


def refuse_contradiction(parameter: str, saved: Any, own: Any) -> None:
    """Raise a UserError if a value differs from the one that a checkpoint was trained with."""
    saved, own = (list(value) if isinstance(value, tuple) else value for value in (saved, own))
    if saved != own:
        raise UserError(f"{parameter}: received {own}, but the checkpoint was trained with {saved}")
