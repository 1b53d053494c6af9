"""What a network is made of: its layers with their parameters, arithmetic and receptive fields; `summary` prints it."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from customresnet.analysis.network.receptive_field import Field, Step, follow
from customresnet.analysis.page import Section
from customresnet.models import NetworkName, build_network
from customresnet.runtime import files
from customresnet.runtime.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIB = 1024**2


@dataclass(frozen=True)
class Layer:
    """One call of a module without children. Lengths are in input pixels, along either side of the image.

    Attributes:
        name: Kind and number of the row, as torchsummary counts them: "Conv2d-1".
        path: The module's name inside the network.
        shape: Of its output for one image: ``(C, H, W)`` or ``(C,)``.
        parameters: Its learnable numbers, frozen ones included.
        flops: Floating-point operations for one image: 2 for each multiply-add of a convolution or linear layer.
            Padding counts like the image; biases, norms, activations, pooling and sums do not count.
        receptive_field: How much of the image a unit of its output depends on, padding included.
        jump: From one unit's field to the next one's: the stride so far.
        start: Centre of the first unit's field; the centre of the first pixel is 0.5.
        padding: How far the first unit's field reaches beyond the image.
    """

    name: str
    path: str
    shape: tuple[int, ...]
    parameters: int
    flops: int
    receptive_field: int
    jump: int
    start: float
    padding: int


@dataclass(frozen=True)
class NetworkOptions:
    """Which network.

    Args:
        network: Its name.
        width: Channels of its first convolution. Default: the network's own.
        dropout: Probability of dropping a unit; 0 is off.
        num_classes: Number of classes.
    """

    network: NetworkName = "custom_resnet"
    width: int | None = None
    dropout: float = 0.0
    num_classes: int = 10


def summary(model: NetworkOptions = NetworkOptions(), image_size: int = 32, output: Path | None = None) -> None:
    """Print a network's layers: output shapes, parameters, FLOPs and receptive fields.

    Args:
        model: Which network.
        image_size: Side of the images in pixels.
        output: A folder to write summary.json and architecture.png into; it is made.
    """
    if image_size < 32:
        raise UserError(f"--image_size must be at least 32; received {image_size}")
    network = build_network(**asdict(model))
    print(summary_text(network, image_size))
    if output is None:
        return
    view = architecture(network, image_size)
    try:
        output.mkdir(parents=True, exist_ok=True)
        files.write_atomically(output / "summary.json", json.dumps(view.numbers, indent=1))
        view.figure.savefig(output / "architecture.png", dpi=150, facecolor="white")
    except OSError as error:
        raise UserError(f"cannot write to --output {output} ({error})") from error
    print(f"written: {files.shown(output.resolve() / 'summary.json')} and architecture.png")


def layer_table(network: nn.Module, image_size: int = 32) -> list[Layer]:
    """The layers of a network ``(N, 3, H, W)`` to logits, in order of execution; it is left as it is.

    Raises:
        UserError: The network cannot be traced, does not take such images, or does something whose receptive field is
            not known.
    """
    return _layers(follow(network, image_size)[0])


def _layers(steps: Iterable[Step]) -> list[Layer]:
    return [
        Layer(
            name=f"{type(step.module).__name__}-{number}",
            path=step.path,
            shape=tuple(step.output.shape[1:]),
            parameters=_parameters(step.module),
            flops=_flops(step),
            receptive_field=step.field.size,
            jump=step.field.jump,
            start=step.field.start,
            padding=step.field.padding,
        )
        for number, step in enumerate(steps, start=1)
    ]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _flops(step: Step) -> int:
    if not isinstance(step.module, nn.Conv2d | nn.Linear):
        return 0
    weight = step.module.weight  # (outputs, what each is a weighted sum of)
    return 2 * math.prod(step.output.shape[1:]) * weight[0].numel()


def totals(network: nn.Module, layers: list[Layer], image_size: int) -> dict[str, float]:
    """Sums over the network; sizes in MiB, with torchsummary's arithmetic for one image.

    Every number takes 4 bytes. The forward/backward pass holds each layer's output and its gradient.
    """
    parameters = _parameters(network)
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    flops = sum(layer.flops for layer in layers)
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


def summary_text(network: nn.Module, image_size: int) -> str:
    """The table of torchsummary, with each layer's FLOPs and receptive field."""
    layers = layer_table(network, image_size)
    total = totals(network, layers, image_size)
    head = ("Layer (type)", "Output Shape", "Param #", "MFLOPs", "Receptive field", "Jump", "Start", "Padding")
    rows = [
        (
            layer.name,
            str([-1, *layer.shape]),
            f"{layer.parameters:,}",
            f"{layer.flops / 1e6:,.2f}",
            str(layer.receptive_field),
            str(layer.jump),
            f"{layer.start:g}",
            str(layer.padding),
        )
        for layer in layers
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    double, single = ("=" * len(lines[0]), "-" * len(lines[0]))
    closing = [
        f"Total params: {total['parameters']:,}",
        f"Trainable params: {total['trainable']:,}",
        f"Non-trainable params: {total['non_trainable']:,}",
        f"Multiply-adds: {total['multiply_adds']:,} (FLOPs: {total['flops']:,}), for one image",
        single,
        f"Input size (MB): {total['input_mb']:.2f}",
        f"Forward/backward pass size (MB): {total['forward_backward_mb']:.2f}",
        f"Params size (MB): {total['parameters_mb']:.2f}",
        f"Estimated Total Size (MB): {total['total_mb']:.2f}",
    ]
    return "\n".join([single, lines[0], double, *lines[1:], double, *closing, single])


def architecture(network: nn.Module, image_size: int) -> Section:
    """The network's layers as a table, and how receptive field, parameters and FLOPs go with depth."""
    steps, logits = follow(network, image_size)
    layers = _layers(steps)
    total = totals(network, layers, image_size)
    name = type(network).__name__
    return Section(
        name="architecture",
        title="Architecture",
        figures={"Receptive field, parameters and FLOPs of every layer": _figure(layers, image_size)},
        numbers={"network": name, "image_size": image_size, "layers": [asdict(x) for x in layers], "totals": total},
        text=_sentences(name, layers, logits, total, image_size),
        table=[
            {
                "layer": layer.name,
                "module": layer.path,
                "output": " x ".join(map(str, layer.shape)),
                "parameters": layer.parameters,
                "MFLOPs": layer.flops / 1e6,
                "receptive field": layer.receptive_field,
                "jump": layer.jump,
                "start": layer.start,
                "padding": layer.padding,
            }
            for layer in layers
        ],
    )


def _sentences(name: str, layers: list[Layer], logits: Field, total: dict[str, float], image_size: int) -> list[str]:
    size = f"{image_size} x {image_size}"
    sentences = [
        f"{name} has {total['parameters']:,} parameters, {total['trainable']:,} of them trainable, in {len(layers)} "
        f"layers. One image of {size} pixels takes {total['flops'] / 1e6:,.1f} MFLOPs in convolutions and linear "
        f"layers ({total['multiply_adds'] / 1e6:,.1f} million multiply-adds, two FLOPs each)."
    ]
    maps = [layer for layer in layers if len(layer.shape) == 3 and layer.shape[-1] > 1]
    if maps:
        widest = max(maps, key=lambda layer: layer.receptive_field)  # the last row may be a shortcut's
        sentences.append(
            f"Before the map is reduced to one unit, the receptive field grows to {widest.receptive_field} pixels a "
            f"side, on {' x '.join(map(str, widest.shape))} units that lie {widest.jump} pixels apart."
        )
    first, end = -logits.padding, logits.size - logits.padding
    seen = min(end, image_size) - max(first, 0)
    sentences.append(
        f"The receptive field of a logit is {logits.size} pixels a side: "
        + ("the whole image" if seen == image_size else f"{seen} of the image's {image_size}")
        + (" and padding around it." if first < 0 or end > image_size else ".")
    )
    return sentences


def _figure(layers: list[Layer], image_size: int) -> "Figure":
    """Above the receptive field against depth, below each layer's share of parameters and FLOPs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(8, 6.4), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    depth = range(1, len(layers) + 1)
    fields = [layer.receptive_field for layer in layers]
    above.plot(depth, fields, "o-", color="tab:blue", markersize=4, label="receptive field")
    above.axhline(image_size, color="tab:red", linestyle="--", label=f"side of the image: {image_size} pixels")
    above.set(ylabel="pixels", ylim=(0, 1.1 * max(*fields, image_size)))
    sums = ((-0.2, "tab:orange", "parameters", "parameters"), (0.2, "tab:green", "FLOPs", "flops"))
    for offset, color, name, key in sums:
        values = [getattr(layer, key) for layer in layers]
        shares = [value / max(sum(values), 1) for value in values]
        below.bar([x + offset for x in depth], shares, 0.4, color=color, label=f"{name} (of {sum(values):,})")
    below.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    below.set(xlabel="layer, in order of execution", ylabel="share of all")
    named: list[int] = []
    for number, (layer, before) in enumerate(zip(layers, [1, *fields], strict=False), start=1):
        works = layer.flops or layer.receptive_field != before
        if works and (not named or number - named[-1] >= len(layers) / 60):  # room for 60 names
            named.append(number)
    below.set_xticks(named, [layers[number - 1].name for number in named], rotation=90, fontsize="small")
    for axes in (above, below):
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure
