"""Weights to share: a safetensors file with the weights, recipe and results of a run. Loading it runs no code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from customresnet.models import network_name
from customresnet.runtime.errors import UserError
from customresnet.runtime.formatting import percent

VERSION = "pytorch-lightning_version"

METADATA = ("hyper_parameters", "preprocessing", "epoch", "global_step", "config", "result", "metrics")
"""What the file contains besides the weights, each as JSON."""


def read_weights(path: Path) -> dict[str, Any]:
    """Read a weights file as a checkpoint that also contains the ``config``, ``result`` and ``metrics`` of its run.

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

    config, result, metrics = (records[name] for name in ("config", "result", "metrics"))
    source = source or checkpoint["preprocessing"]["source"]
    # paths are meaningless on another machine
    data = {**config["data"], "source": source, "root": None}
    config = {**config, "data": data, "trainer": {**config["trainer"], "default_root_dir": None}}
    content = {
        **checkpoint,
        "preprocessing": {**checkpoint["preprocessing"], "source": source},
        "config": config,
        "result": result,
        "metrics": metrics,
    }
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
