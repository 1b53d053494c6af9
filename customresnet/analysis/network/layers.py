"""The layers of a network: output shapes, parameters, FLOPs and receptive fields for one image."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from customresnet.analysis.network.receptive_field import Field, receptive_fields
from customresnet.runtime.errors import UserError

MIB = 1024**2
SMALL = 64
"""Up to this image size, a forward pass on the CPU is faster than importing torch._dynamo for "meta"."""


@dataclass(frozen=True)
class Layer:
    """A call of a module that calls no other module. Lengths are in pixels of the image, along either side.

    Attributes:
        name: Class and row number, as torchsummary counts them: "Conv2d-1".
        path: The module's name in the network.
        shape: Output shape for one image: ``(C, H, W)`` or ``(C,)``.
        parameters: Parameters, including frozen ones.
        flops: Floating-point operations for one image: 2 for each multiply-add of a convolution or matrix product,
            padding included. Biases, norms, activations, pooling and sums do not count.
        receptive_field: Pixels that a unit of the output depends on, padding included. None, like the next three, if
            unknown.
        jump: Distance between the fields of neighboring units: the total stride.
        start: Center of the first unit's field; the center of the first pixel is 0.5.
        padding: Pixels by which the first unit's field begins before the image.
    """

    name: str
    path: str
    shape: tuple[int, ...]
    parameters: int
    flops: int
    receptive_field: int | None = None
    jump: int | None = None
    start: float | None = None
    padding: int | None = None


@dataclass(frozen=True)
class NetworkProfile:
    """The layers of a network in order of execution.

    Attributes:
        network: Name of its class.
        image_size: Side of the images in pixels.
        layers: Its layers.
        totals: Sums over the network; sizes in MiB with torchsummary's arithmetic for one image: 4 bytes a number, and
            each layer's output and its gradient in the forward/backward pass.
        logits: Receptive field of the logits; None if unknown.
        unknown: Why some receptive fields are unknown; empty if all are known.
    """

    network: str
    image_size: int
    layers: list[Layer]
    totals: dict[str, float]
    logits: Field | None
    unknown: str


def profile(network: nn.Module, image_size: int = 32) -> NetworkProfile:
    """Profile a network that maps images ``(N, 3, H, W)`` to logits, on a copy.

    Raises:
        UserError: It does not accept images of this size.
    """
    name, failure = type(network).__name__, None
    for device in ("cpu",) if image_size <= SMALL else ("meta", "cpu"):  # a forward that reads values fails on meta
        try:
            layers, flops = _layers(network, image_size, device)
            break
        except Exception as error:  # a forward may raise anything
            failure = error
    else:
        reason = next(iter(str(failure).splitlines()), type(failure).__name__)
        raise UserError(f"{name} does not accept images of `image_size` {image_size} ({reason})") from failure
    fields = receptive_fields(network, image_size, device)
    by_path = {path: iter(outputs) for path, outputs in fields.layers.items()}
    for index, layer in enumerate(layers):
        if field := next(by_path.get(layer.path, iter(())), None):
            layers[index] = replace(
                layer, receptive_field=field.size, jump=field.jump, start=field.start, padding=field.padding
            )
    totals = _totals(network, layers, flops, image_size)
    return NetworkProfile(name, image_size, layers, totals, fields.logits, fields.unknown)


class FlopCounter(TorchDispatchMode):
    """Counts FLOPs with the formulas of torch's FlopCounterMode, which itself would import torch._dynamo."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import torch._dynamo too

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.utils.flop_counter import flop_registry

        output = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=output)
        return output


def _layers(network: nn.Module, image_size: int, device: str) -> tuple[list[Layer], int]:
    """The layers without their receptive fields, and the FLOPs of the whole network, for one image."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    network = copy.deepcopy(network).eval().to(device=device, dtype=torch.float32)
    counter = FlopCounter()
    layers: list[Layer] = []
    starts: list[tuple[int, int]] = []  # for each module being called, the layers and FLOPs before it

    def start(*_: object) -> None:
        starts.append((len(layers), counter.flops))

    for name, module in network.named_modules():

        def end(module: nn.Module, _: object, output: object, path: str = name) -> None:
            before, flops = starts.pop()
            if before == len(layers):  # it called no other module
                row = f"{type(module).__name__}-{before + 1}"
                layers.append(Layer(row, path, _shape(output), parameter_count(module), counter.flops - flops))

        for hooks in (module._forward_hooks, module._forward_pre_hooks):  # the user's hooks are not called
            hooks.clear()
        if name:
            module.register_forward_pre_hook(start)
            module.register_forward_hook(end)
    with counter, sdpa_kernel(SDPBackend.MATH):  # torch has no formula for the CPU's fused attention
        network.forward(torch.zeros(1, 3, image_size, image_size, device=device))  # not compiled
    return layers, counter.flops


def _shape(output: Any) -> tuple[int, ...]:
    """Shape of an output, or of the first tensor of several, for one image."""
    if isinstance(output, tuple | list) and output:
        return _shape(output[0])
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else ()


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _totals(network: nn.Module, layers: list[Layer], flops: int, image_size: int) -> dict[str, float]:
    parameters = parameter_count(network)
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    input_mb = 4 * 3 * image_size**2 / MIB
    pass_mb = 2 * 4 * sum(math.prod(layer.shape) for layer in layers) / MIB
    parameters_mb = 4 * parameters / MIB
    return {
        "parameters": parameters,
        "trainable": trainable,
        "non_trainable": parameters - trainable,
        "multiply_adds": flops // 2,
        "flops": flops,
        "input_mb": input_mb,
        "forward_backward_mb": pass_mb,
        "parameters_mb": parameters_mb,
        "total_mb": input_mb + pass_mb + parameters_mb,
    }
