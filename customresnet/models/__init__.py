"""Plain networks: images ``(N, 3, H, W)`` to logits ``(N, num_classes)``. No Lightning here."""

import inspect
from typing import Literal

from torch import nn

from customresnet.models.advanced_net import AdvancedNet
from customresnet.models.advanced_net_original import AdvancedNetOriginal
from customresnet.models.custom_resnet import CustomResNet
from customresnet.runtime.errors import UserError

NetworkName = Literal["custom_resnet", "advanced_net", "advanced_net_original"]

NETWORKS: dict[NetworkName, type[nn.Module]] = {
    "custom_resnet": CustomResNet,
    "advanced_net": AdvancedNet,
    "advanced_net_original": AdvancedNetOriginal,
}
"""Every network by the name that ``--model.network`` takes; all take num_classes, width and dropout."""


def default_width(network: NetworkName) -> int:
    """Channels of a network's first convolution when none are asked for."""
    return inspect.signature(NETWORKS[network]).parameters["width"].default


def build_network(
    network: NetworkName, num_classes: int = 10, width: int | None = None, dropout: float = 0.0
) -> nn.Module:
    """A new network by its name; ``width`` None is its own default.

    Raises:
        UserError: An option has no sense.
    """
    width = default_width(network) if width is None else width
    if width < 1:
        raise UserError(f"--model.width must be at least 1; received {width}")
    if not 0 <= dropout < 1:
        raise UserError(f"--model.dropout must be from 0 to below 1; received {dropout}")
    if num_classes < 2:
        raise UserError(f"--model.num_classes must be at least 2; received {num_classes}")
    return NETWORKS[network](num_classes=num_classes, width=width, dropout=dropout)


__all__ = ["NETWORKS", "AdvancedNet", "AdvancedNetOriginal", "CustomResNet", "NetworkName", "build_network"]
