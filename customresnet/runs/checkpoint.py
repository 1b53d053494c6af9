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
from customresnet.runs.kinds import DamagedError
from customresnet.runs.validation import PREFIX, check_checkpoint, check_network_code, checksum
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import read_json
from customresnet.runtime.formatting import percent

FORMAT = 1
"""Version of what a checkpoint of this project contains besides Lightning's own entries."""
FORMAT_KEY = "customresnet_format"

NEEDED = {"hyper_parameters", "preprocessing", "state_dict"}

VERSION = "pytorch-lightning_version"
METADATA = ("hyper_parameters", "preprocessing", "epoch", "global_step", "config", "result", "metrics")
"""What a weights file contains besides the weights, each as JSON."""
CHECKSUM = "sha256"
"""Key of a weights file's checksum, which older files lack."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint or weights file of this project on the CPU, without executing code from it.

    If the file is damaged, the checkpoint before it is loaded, with a warning.

    Raises:
        UserError: Both are damaged, or it is not a checkpoint of this project, or of a newer format.
    """
    if path.suffix == WEIGHTS_SUFFIX:
        return read_weights(path)
    checkpoint = load_plain(path)
    if not checkpoint.keys() >= NEEDED:
        raise UserError(f"`ckpt_path` {path} is not a checkpoint of this project's `fit`")
    _check(checkpoint, path)
    return checkpoint


def load_plain(path: Path) -> dict[str, Any]:
    """Load a checkpoint of any LightningModule on the CPU, without executing code from it.

    If it contains what this project's contain, it is checked.

    Raises:
        UserError: It is damaged, and so is the checkpoint before it.
    """
    path = newest_intact(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler may raise anything on arbitrary bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"`ckpt_path` {path} is truncated or not a checkpoint ({reason[:100]})") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"`ckpt_path` {path} is not a checkpoint of this project's `fit`")
    if checkpoint.keys() >= NEEDED:
        _check(checkpoint, path)
    return checkpoint


def _check(checkpoint: dict[str, Any], path: Path) -> None:
    check_format(checkpoint)
    try:
        check_checkpoint(checkpoint)
    except DamagedError as error:
        raise UserError(f"`ckpt_path` {path} is damaged: {error}") from error
    options = checkpoint["hyper_parameters"]
    options["network"] = network_spec(options["network"])


def check_format(checkpoint: dict[str, Any]) -> None:
    """Raise a UserError if a newer version of this package wrote the checkpoint."""
    version = checkpoint.get(FORMAT_KEY, 0)  # 0: from before formats were numbered
    if not isinstance(version, int) or version > FORMAT:
        raise UserError(
            f"`ckpt_path`: the checkpoint has format {version}, this package reads up to {FORMAT}: update customresnet"
        )


def load_network(checkpoint: dict[str, Any]) -> nn.Module:
    """The trained network of a checkpoint, on the CPU, in eval mode and channels_last.

    Raises:
        UserError: The network's class cannot be imported or is not trusted, or its weights do not fit.
    """
    options = checkpoint["hyper_parameters"]
    check_network_code(options)
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
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        saved = metadata.pop(CHECKSUM, None)
        content: dict[str, Any] = {name: read_json(metadata[name]) for name in METADATA}
        version = read_json(metadata.get(FORMAT_KEY, "0"))
        content |= {"state_dict": state, VERSION: metadata[VERSION], FORMAT_KEY: version}
    except Exception as error:  # the library may raise anything on arbitrary bytes
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"`ckpt_path` {path} is damaged or not a weights file of this project ({reason})") from error
    if saved not in (None, checksum(metadata, state)):
        raise UserError(f"`ckpt_path` {path} is damaged: it has a wrong checksum")
    _check(content, path)
    return content


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
    metadata |= {"description": description, VERSION: checkpoint[VERSION], FORMAT_KEY: str(FORMAT)}
    state = {name: tensor.contiguous() for name, tensor in checkpoint["state_dict"].items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={**metadata, CHECKSUM: checksum(metadata, state)})
    return description
