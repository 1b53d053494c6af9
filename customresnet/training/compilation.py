"""Whether torch.compile pays for itself: the rule behind ``--model.compile auto``."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch

from customresnet.models import NetworkName
from customresnet.precision import cpu_has_bf16

WORTH_IMAGES = 500_000
"""Images that a run must train on for the minute of compiling to be a small part of what it saves."""


def worth_compiling(network: NetworkName, device: torch.device, precision: str, images: float) -> bool:
    """Whether to compile: only where it was measured to win (docs/performance.md).

    Args:
        network: Which network.
        device: Where it is trained.
        precision: Lightning's name of it.
        images: How many images the run trains on, all epochs together.
    """
    fast = device.type == "cpu" and precision.startswith("bf16") and cpu_has_bf16()
    return fast and network == "custom_resnet" and images >= WORTH_IMAGES and _can_compile()


def _can_compile() -> bool:
    """Whether the C++ compiler that torch calls, and Python's headers, are here."""
    compiler = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(os.environ.get("CXX") or compiler) is not None and headers.is_file()
