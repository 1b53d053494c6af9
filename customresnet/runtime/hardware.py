"""The device that a run computes on."""

import os
import platform
from pathlib import Path

import torch


def device_kind(accelerator: str) -> str:
    """``cuda``, ``mps`` or ``cpu``: the device that Lightning's `accelerator` selects on this machine."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return accelerator if accelerator in ("cuda", "mps") else "cpu"


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's model and number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores" + (", Apple GPU" if device.type == "mps" else "")
