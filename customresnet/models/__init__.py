"""Networks: plain nn.Modules from images ``(N, 3, H, W)`` to logits ``(N, num_classes)``, without Lightning.

``build_network`` builds one of this package by its name, or any nn.Module class by its import path.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from customresnet.models.advanced_net import AdvancedNet
from customresnet.models.advanced_net_original import AdvancedNetOriginal
from customresnet.models.custom_resnet import CustomResNet
from customresnet.runtime.errors import UserError

NETWORKS: dict[str, type[nn.Module]] = {
    "custom_resnet": CustomResNet,
    "advanced_net": AdvancedNet,
    "advanced_net_original": AdvancedNetOriginal,
}
"""This package's networks by name; each takes num_classes, width and dropout."""

RENAMED = {"advanced_net_report": "advanced_net_original"}
"""Names in older checkpoints."""

NetworkSpec = str | dict[str, Any]
"""A name, an import path, or ``class_path`` and ``init_args`` as in LightningCLI."""

if TYPE_CHECKING:  # otherwise --help would list every known nn.Module
    Network = NetworkSpec | nn.Module
else:
    Network = NetworkSpec


def network_spec(network: Network) -> NetworkSpec:
    """What a checkpoint stores about a network: a name in ``NETWORKS``, or a class path and init arguments.

    Of an instance only the class is known, so it can be rebuilt only if ``num_classes`` is its only required argument.
    """
    if isinstance(network, nn.Module):
        kind = type(network)
        return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": {}}
    if isinstance(network, str):
        network = RENAMED.get(network, network)
        return network if network in NETWORKS else {"class_path": network, "init_args": {}}
    if not isinstance(network.get("class_path"), str) or not network.keys() <= {"class_path", "init_args"}:
        raise UserError(f"`network` takes a class_path and its init_args; received {network}")
    class_path, init_args = network["class_path"], dict(network.get("init_args") or {})
    if class_path in NETWORKS:
        if init_args:
            raise UserError(f"`network` {class_path} takes `width` and `dropout`, not init_args; received {init_args}")
        return class_path
    return {"class_path": class_path, "init_args": init_args}


def network_name(network: NetworkSpec) -> str:
    """A short name: ``custom_resnet``, or the last part of a class path."""
    spec = network_spec(network)
    return spec if isinstance(spec, str) else spec["class_path"].rpartition(".")[2]


def default_width(network: NetworkSpec) -> int | None:
    """Default channels of the first convolution; None for a network from outside this package."""
    spec = network_spec(network)
    return inspect.signature(NETWORKS[spec]).parameters["width"].default if isinstance(spec, str) else None


def build_network(network: Network, num_classes: int = 10, width: int | None = None, dropout: float = 0.0) -> nn.Module:
    """Build a network.

    Args:
        network: A name, an import path, a class path with init arguments, or an instance, which is used as it is.
        num_classes: Number of classes; passed to any network that takes an argument of this name.
        width: Channels of the first convolution; only for ``NETWORKS``. Default: the network's own.
        dropout: Dropout probability; only for ``NETWORKS``.

    Raises:
        UserError: An option is invalid, or the class cannot be imported or built.
    """
    if num_classes < 2:
        raise UserError(f"`num_classes` must be at least 2; received {num_classes}")
    if not 0 <= dropout < 1:
        raise UserError(f"`dropout` must be at least 0 and below 1; received {dropout}")
    spec = network_spec(network)
    if isinstance(spec, str):
        width = default_width(spec) if width is None else width
        if width is None or width < 1:
            raise UserError(f"`width` must be at least 1; received {width}")
        return NETWORKS[spec](num_classes=num_classes, width=width, dropout=dropout)
    for name, value in (("width", width), ("dropout", dropout)):
        if value:
            raise UserError(
                f"`{name}` is an option of {', '.join(NETWORKS)}; received {value} with `network` "
                f"{spec['class_path']}: pass `{name}` null, and the network's own options as init_args"
            )
    if isinstance(network, nn.Module):
        return network
    return _instantiate(spec["class_path"], spec["init_args"], num_classes)


def _instantiate(class_path: str, init_args: dict[str, Any], num_classes: int) -> nn.Module:
    create = _import(class_path)
    parameters = inspect.signature(create).parameters
    if "num_classes" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        init_args = {"num_classes": num_classes, **init_args}
    try:
        network = create(**init_args)
    except Exception as error:
        raise UserError(f"`network` {class_path} cannot be built with init_args {init_args}: {error}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"`network` {class_path} returns a {type(network).__name__}, not an nn.Module")
    return network


def _import(class_path: str) -> Callable[..., Any]:
    module, _, name = class_path.rpartition(".")
    if not module:
        raise UserError(
            f"`network` must be one of {', '.join(NETWORKS)} or the import path of an nn.Module class; "
            f"received {class_path}"
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        reason = f"cannot be imported ({error}); it must be on the Python path"
        raise UserError(f"`network` {class_path} {reason}") from error
    if not callable(found):
        raise UserError(f"`network` {class_path} is not a class")
    return found


def check_network(network: nn.Module, num_classes: int, image_size: int) -> None:
    """Check that a network maps images ``(2, 3, image_size, image_size)`` to logits ``(2, num_classes)``.

    Raises:
        UserError: It does not accept such images, or returns something else.
    """
    training, name = network.training, type(network).__name__
    images = torch.zeros(2, 3, image_size, image_size)
    try:
        with torch.no_grad():
            logits = network.eval()(images)
    except Exception as error:
        raise UserError(f"`network` {name} does not accept images {tuple(images.shape)}: {error}") from error
    finally:
        network.train(training)
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        received = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UserError(f"`network` {name} must return logits (2, {num_classes}) for 2 images; received {received}")
