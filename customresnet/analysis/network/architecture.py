"""The architecture of a network, as a section and as text: its layers and their receptive fields."""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from customresnet.analysis.network.layers import Layer, NetworkProfile
from customresnet.analysis.network.receptive_field import Field
from customresnet.analysis.page import Section
from customresnet.runtime.formatting import UNKNOWN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def architecture(found: NetworkProfile) -> Section:
    """The network's layers as a table, and its receptive field, parameters and FLOPs by depth."""
    return Section(
        name="architecture",
        title="Architecture",
        figures={"Receptive field, parameters and FLOPs of each layer.": _figure(found)},
        numbers={
            "network": found.network,
            "image_size": found.image_size,
            "layers": [asdict(layer) for layer in found.layers],
            "totals": found.totals,
        },
        text=_sentences(found),
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
            for layer in found.layers
        ],
    )


def summary_text(found: NetworkProfile) -> str:
    """torchsummary's table, with the FLOPs and receptive field of each layer."""
    head = ("Layer (type)", "Output Shape", "Param #", "MFLOPs", "Receptive field", "Jump", "Start", "Padding")
    rows = [
        (
            layer.name,
            str([-1, *layer.shape]),
            f"{layer.parameters:,}",
            f"{layer.flops / 1e6:,.2f}",
            *map(_shown, (layer.receptive_field, layer.jump, layer.start, layer.padding)),
        )
        for layer in found.layers
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    double, single = ("=" * len(lines[0]), "-" * len(lines[0]))
    total = found.totals
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
    return "\n".join([single, lines[0], double, *lines[1:], double, *closing, single, *_unknown(found)])


def _shown(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unknown(found: NetworkProfile) -> list[str]:
    return [f"Receptive fields shown as {UNKNOWN} are unknown: {found.unknown}."] if found.unknown else []


def _sentences(found: NetworkProfile) -> list[str]:
    total, side = found.totals, found.image_size
    sentences = [
        f"{found.network} has {total['parameters']:,} parameters, {total['trainable']:,} of them trainable, in "
        f"{len(found.layers)} layers. One image of {side} x {side} pixels takes {total['flops'] / 1e6:,.1f} MFLOPs in "
        f"convolutions and matrix products ({total['multiply_adds'] / 1e6:,.1f} million multiply-adds, two FLOPs each)."
    ]
    maps = [layer for layer in found.layers if len(layer.shape) == 3 and layer.shape[-1] > 1]
    if maps and not found.unknown:
        largest = max(maps, key=lambda layer: layer.receptive_field or 0)  # the last row may belong to a shortcut
        sentences.append(
            f"Before the map is reduced to one unit, the receptive field grows to {largest.receptive_field} pixels a "
            f"side, on {' x '.join(map(str, largest.shape))} units that are {largest.jump} pixels apart."
        )
    if found.logits:
        sentences.append(_logits(found.logits, side))
    return sentences + _unknown(found)


def _logits(logits: Field, image_size: int) -> str:
    first, end = -logits.padding, logits.size - logits.padding
    seen = min(end, image_size) - max(first, 0)
    part = "the whole image" if seen == image_size else f"{seen} of the image's {image_size}"
    around = " and padding around it" if first < 0 or end > image_size else ""
    return f"The receptive field of a logit is {logits.size} pixels a side: {part}{around}."


def _figure(found: NetworkProfile) -> "Figure":
    """The receptive field by depth, and each layer's percentage of parameters and FLOPs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    layers, side = found.layers, found.image_size
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    depth = range(1, len(layers) + 1)
    fields = [math.nan if layer.receptive_field is None else layer.receptive_field for layer in layers]
    above.plot(depth, fields, "o-", color="tab:blue", markersize=4, label="receptive field")
    above.axhline(side, color="tab:red", linestyle="--", label=f"side of the image: {side} pixels")
    above.set(ylabel="pixels", ylim=(0, 1.1 * max(side, *(layer.receptive_field or 0 for layer in layers))))
    series: tuple[tuple[float, str, str, Callable[[Layer], int]], ...] = (
        (-0.2, "tab:orange", "parameters", lambda layer: layer.parameters),
        (0.2, "tab:green", "FLOPs", lambda layer: layer.flops),
    )
    for offset, color, name, value in series:
        values = [value(layer) for layer in layers]
        shares = [each / max(sum(values), 1) for each in values]
        below.bar([x + offset for x in depth], shares, 0.4, color=color, label=f"{name} (of {sum(values):,})")
    below.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    below.set(xlabel="layer, in order of execution", ylabel="percentage of the total")
    labelled: list[int] = []
    before: int | None = 1
    for number, layer in enumerate(layers, start=1):
        matters, before = layer.flops or layer.receptive_field != before, layer.receptive_field
        if matters and (not labelled or number - labelled[-1] >= len(layers) / 60):  # space for 60 labels
            labelled.append(number)
    below.set_xticks(labelled, [layers[number - 1].name for number in labelled], rotation=90, fontsize="small")
    for axes in (above, below):
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure
