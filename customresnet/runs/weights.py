"""Weights to ship: one safetensors file that also says what they are, and holds nothing that a reader would run."""

import json
from pathlib import Path
from typing import Any

from customresnet.runtime.errors import UserError

SUFFIX = ".safetensors"
VERSION = "pytorch-lightning_version"

RECORDED = ("config", "result", "metrics")
"""Which records of the run stand beside the weights (see ``records.py``)."""

DESCRIBED = ("hyper_parameters", "preprocessing", "epoch", "global_step", *RECORDED)
"""What stands beside the weights, each as JSON."""


def read(path: Path) -> dict[str, Any]:
    """The weights as a checkpoint (see ``runs.read_checkpoint``), with the ``config`` and ``result`` of their run.

    Raises:
        UserError: The file is damaged, or not one of ``write``.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            described = {name: json.loads(about[name]) for name in DESCRIBED}
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise UserError(f"--ckpt_path {path} is damaged, or not weights of this project ({error})") from error
    return {**described, "state_dict": state, VERSION: about[VERSION]}


def write(path: Path, checkpoint: dict[str, Any], records: dict[str, Any], source: str | None = None) -> str:
    """Write the weights of a finished run, labelled with their data, recipe and accuracy.

    Args:
        path: File to write.
        checkpoint: The run's checkpoint.
        records: What the run wrote down, at least ``RECORDED``.
        source: Name of the data, where ``folder`` would say too little.

    Returns:
        The label.
    """
    from safetensors.torch import save_file

    config, result, metrics = (records[name] for name in RECORDED)
    source = source or checkpoint["preprocessing"]["source"]
    preprocessing = {**checkpoint["preprocessing"], "source": source}
    # paths mean nothing elsewhere
    data = {**config["data"], "source": source, "root": None}
    config = {**config, "data": data, "trainer": {**config["trainer"], "default_root_dir": None}}
    part = data.get("train_size")
    images = f"{part:,} images of {source}" if part else source
    label = (
        f"{checkpoint['hyper_parameters']['network']}, {result['parameters']:,} parameters, trained on {images} for "
        f"{result['epochs']} epochs: {result['test/correct']:,} of {result['test/images']:,} test images right "
        f"({result['test/acc']:.2%})"
    )
    facts = {**checkpoint, "preprocessing": preprocessing, "config": config, "result": result, "metrics": metrics}
    about = {name: json.dumps(facts[name]) for name in DESCRIBED}
    about |= {"description": label, VERSION: checkpoint[VERSION]}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in checkpoint["state_dict"].items()}, path, metadata=about)
    return label
