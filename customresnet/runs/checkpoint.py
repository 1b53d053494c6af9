"""Read a checkpoint or a weights file, write a weights file, and rebuild the network of either."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from customresnet.models import build_network, network_name, network_spec
from customresnet.runs.durable import newest_intact
from customresnet.runs.folders import WEIGHTS_SUFFIX
from customresnet.runtime.errors import UserError
from customresnet.runtime.formatting import percent

FORMAT = 1
"""Version of what a checkpoint of this project contains besides Lightning's own entries."""
FORMAT_KEY = "customresnet_format"

PREFIX = "net."
"""Prefix of the network's weights in a checkpoint's state_dict."""

NEEDED = {"hyper_parameters", "preprocessing", "state_dict"}

VERSION = "pytorch-lightning_version"
METADATA = ("hyper_parameters", "preprocessing", "epoch", "global_step", "config", "result", "metrics")
"""What a weights file contains besides the weights, each as JSON."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint or weights file of this project on the CPU, without executing code from it.

    If the file is damaged, the checkpoint before it is loaded, with a warning.

    Raises:
        UserError: Both are damaged, or it is not a checkpoint of this project, or of a newer format.
    """
    if path.suffix == WEIGHTS_SUFFIX:
        return read_weights(path)
    path = newest_intact(path)
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


def read_weights(path: Path) -> dict[str, Any]:
    """Read a weights file as a checkpoint that also contains the ``config``, ``result`` and ``metrics`` of its run.

    It is a safetensors file, which contains no code.

    Raises:
        UserError: The file is damaged or was not written by ``write_weights``.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            content = {name: json.loads(metadata[name]) for name in METADATA}
            version = metadata[VERSION]
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise UserError(f"`ckpt_path` {path} is damaged or not a weights file of this project ({error})") from error
    return {**content, "state_dict": state, VERSION: version}


def write_weights(path: Path, checkpoint: dict[str, Any], records: Mapping[str, Any], source: str | None = None) -> str:
    """Write the weights of a finished run with its data, recipe and results.

    Args:
        path: File to write.
        checkpoint: The run's checkpoint.
        records: What the run recorded: ``config``, ``result`` and ``metrics``.
        source: Name of the data set, for example instead of ``folder``.

    Returns:
        A description of the weights, which the file contains too.
    """
    from safetensors.torch import save_file

    config, result = records["config"], records["result"]
    source = source or checkpoint["preprocessing"]["source"]
    # paths are meaningless on another machine
    data = {**config["data"], "source": source, "root": None}
    config = {**config, "data": data, "trainer": {**config["trainer"], "default_root_dir": None}}
    preprocessing = {**checkpoint["preprocessing"], "source": source}
    content = {**checkpoint, **records, "preprocessing": preprocessing, "config": config}
    part = data.get("train_size")
    images = f"{part:,} images of {source}" if part else source
    network = network_name(checkpoint["hyper_parameters"]["network"])
    accuracy = "not evaluated"
    if "test/acc" in result:
        correct = f"{result['test/correct']:,} of {result['test/images']:,}"
        accuracy = f"{correct} test images classified correctly ({percent(result['test/acc'])})"
    trained = f"trained on {images} for {result['epochs']} epochs"
    description = f"{network}, {result['parameters']:,} parameters, {trained}: {accuracy}"
    metadata = {name: json.dumps(content[name]) for name in METADATA}
    metadata |= {"description": description, VERSION: checkpoint[VERSION]}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in checkpoint["state_dict"].items()}, path, metadata=metadata)
    return description
