"""Where a training step spends its time."""

import torch
from torch import nn

from benchmarks.step import train_step
from customresnet.models import CustomResNet
from customresnet.runtime.memory import keep_freed_memory

PARTS = {
    "convolutions, forward": ("convolution", "conv2d"),
    "convolutions, backward": ("convolution_backward",),
    "max-pooling": ("max_pool2d",),
    "filling with zeros": ("fill_", "zero_"),
    "batch norm": ("batch_norm",),
    "ReLU": ("clamp_min", "relu", "threshold_backward"),
    "sums and copies": ("add", "copy_", "sum", "mul"),
    "linear layer": ("addmm", "aten::mm", "linear"),
    "optimizer": ("_fused_adam_", "zero_grad"),
}
"""Parts of a step, each with substrings of its operators' names. The longest matching substring decides."""


def profile(batch_size: int = 512, steps: int = 3, keep: bool = True) -> dict[str, dict[str, float]]:
    """Seconds per step in each of ``PARTS`` and in all other operators: their self time in torch.profiler.

    Args:
        batch_size: Images per step.
        steps: Number of measured steps; as many warm-up steps come first.
        keep: Keep freed memory, as ``fit`` does.
    """
    if keep:
        keep_freed_memory()
    network: nn.Module = CustomResNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    images = torch.randn(batch_size, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch_size,))
    schedule = torch.profiler.schedule(wait=0, warmup=steps, active=steps, repeat=1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], schedule=schedule) as profiler:
        for _ in range(2 * steps):
            train_step(network, optimizer, images, labels)
            profiler.step()
    seconds = dict.fromkeys([*PARTS, "all else"], 0.0)
    for event in profiler.key_averages():
        if not event.key.startswith("ProfilerStep"):
            seconds[part_of(event.key)] += event.self_cpu_time_total / 1e6 / steps
    return {"parts": seconds}


def part_of(operator: str) -> str:
    """The part that an operator belongs to."""
    pieces = [(len(piece), part) for part, pieces in PARTS.items() for piece in pieces if piece in operator]
    return max(pieces)[1] if pieces else "all else"
