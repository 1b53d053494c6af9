"""Read a checkpoint, and rebuild the network in it."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from customresnet.models import build_network, network_spec
from customresnet.runs import weights
from customresnet.runs.folders import WEIGHTS_SUFFIX
from customresnet.runtime.errors import UserError

FORMAT = 1
"""Version of what a checkpoint of this project contains besides Lightning's own entries."""
FORMAT_KEY = "customresnet_format"

PREFIX = "net."
"""Prefix of the network's weights in a checkpoint's state_dict."""

NEEDED = {"hyper_parameters", "preprocessing", "state_dict"}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint or weights file of this project on the CPU, without executing code from it.

    Raises:
        UserError: It is truncated, not a checkpoint of this project, or of a newer format.
    """
    if path.suffix == WEIGHTS_SUFFIX:
        return weights.read_weights(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler may raise anything on arbitrary bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"`ckpt_path` {path} is truncated or not a checkpoint ({reason[:100]})") from error
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= NEEDED:
        raise UserError(f"`ckpt_path` {path} is not a checkpoint of this project's `fit`")
    check_format(checkpoint)
    options = checkpoint["hyper_parameters"]
    options["network"] = network_spec(options["network"])
    return checkpoint


def check_format(checkpoint: dict[str, Any]) -> None:
    """Raise a UserError if a newer version of this package wrote the checkpoint."""
    version = checkpoint.get(FORMAT_KEY, 0)  # 0: from before formats were numbered
    if version > FORMAT:
        raise UserError(
            f"`ckpt_path`: the checkpoint has format {version}, this package reads up to {FORMAT}: update customresnet"
        )


def load_network(checkpoint: dict[str, Any]) -> nn.Module:
    """The trained network of a checkpoint, on the CPU, in eval mode and channels_last.

    Raises:
        UserError: The network's class cannot be imported, or its weights do not fit.
    """
    options = checkpoint["hyper_parameters"]
    network = build_network(**{name: options[name] for name in ("network", "num_classes", "width", "dropout")})
    state = checkpoint["state_dict"]
    own = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the checkpoint's weights do not fit the network {options['network']}: {reason}") from error
    return network.to(memory_format=torch.channels_last).eval()
