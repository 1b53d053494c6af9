"""The network in a checkpoint, ready to look at."""

from typing import Any

import torch
from torch import nn

from customresnet.models import build_network

PREFIX = "net."
"""What the names of the network's weights begin with in a checkpoint."""


def load_network(checkpoint: dict[str, Any]) -> nn.Module:
    """The trained network of a checkpoint (see ``runs.read_checkpoint``), on the CPU, in eval mode, channels_last."""
    options = checkpoint["hyper_parameters"]
    network = build_network(**{name: options[name] for name in ("network", "num_classes", "width", "dropout")})
    state = checkpoint["state_dict"]
    network.load_state_dict({k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)})
    return network.to(memory_format=torch.channels_last).eval()
