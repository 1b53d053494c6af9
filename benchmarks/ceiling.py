"""Upper bounds on speed: matrix products, and the network's convolutions alone."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from customresnet.models import CustomResNet
from customresnet.runtime.memory import keep_freed_memory
from customresnet.runtime.precision import autocast_type, cpu_has_bf16


def products(size: int = 2048, seconds: float = 2.0) -> dict[str, float]:
    """GFLOP/s of a large matrix product, for float32 and, where the hardware has it, bfloat16."""
    result = {}
    for kind in [torch.float32, *([torch.bfloat16] if cpu_has_bf16() else [])]:
        a, b = (torch.randn(size, size).to(kind) for _ in range(2))
        result[str(kind).removeprefix("torch.")] = 2 * size**3 / best_time(partial(torch.matmul, a, b), seconds) / 1e9
    return result


def convolutions(batch_size: int = 512, seconds: float = 1.0) -> dict[str, Any]:
    """Forward and backward passes of the network's convolutions and linear layer, at the precision of ``fit``.

    Returns:
        Images per second and GFLOP/s of all layers together, and GFLOP/s of each layer.
    """
    keep_freed_memory()
    kind = autocast_type("cpu") or torch.float32
    network, x = CustomResNet().to(kind).to(memory_format=torch.channels_last), torch.randn(2, 3, 32, 32).to(kind)
    shapes: list[tuple[str, nn.Module, torch.Size]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, _, name=name: shapes.append((name, layer, inputs[0].shape)))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    times, operations = {}, {}
    for number, (name, layer, shape) in enumerate(shapes):
        inputs = torch.randn(batch_size, *shape[1:]).to(kind)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        inputs.requires_grad_(number > 0)  # images need no gradient
        gradient = torch.randn_like(layer(inputs))
        wanted = [layer.weight, inputs] if number else [layer.weight]
        times[name] = best_time(partial(_forward_and_backward, layer, inputs, gradient, wanted), seconds)
        weight: Any = layer.weight
        operations[name] = 2 * weight[0].numel() * gradient.numel() * (3 if number else 2)
    total = sum(times.values())
    return {
        "images_per_second": batch_size / total,
        "gflops": sum(operations.values()) / total / 1e9,
        "layers": {name: operations[name] / times[name] / 1e9 for name in times},
    }


def _forward_and_backward(layer: nn.Module, inputs: Tensor, gradient: Tensor, wanted: list[Any]) -> None:
    torch.autograd.grad(layer(inputs), wanted, gradient)


def best_time(step: Callable[[], Any], seconds: float) -> float:
    """Seconds of the fastest call, out of at least 3 calls that take at least ``seconds`` together."""
    step()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)
