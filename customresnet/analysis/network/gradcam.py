"""Grad-CAM: where in an image a network finds evidence for a class.

Source: Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", 2017,
https://arxiv.org/abs/1610.02391. captum computes the maps.
"""

import copy
from collections import Counter
from typing import Literal

import matplotlib
import numpy as np
import torch
from torch import Tensor, nn

from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runtime.errors import UserError
from customresnet.runtime.formatting import one_line, percent
from customresnet.runtime.pictures import image_grid

Target = Literal["true", "predicted", "both"]
BATCH = 100
NO_MAP = "no layer of the network returns a feature map (N, C, H, W)"


def find_layer(network: nn.Module, name: str | None, image_size: int) -> str | None:
    """The layer to explain: ``name``, or the last stage that returns a feature map; None if there is no such layer.

    Raises:
        UserError: There is no layer of this name, or it returns no feature map. The message lists the layers that do.
    """
    maps = _feature_maps(network, image_size)
    if name is not None:
        if name not in maps:
            known = ", ".join(maps) or "none"
            raise UserError(f"`gallery.layer` {name}: no layer of this name returns a feature map; layers: {known}")
        return name
    stages = {layer: side for layer, side in maps.items() if "Pool" not in type(network.get_submodule(layer)).__name__}
    return _last_stage(stages or maps)


def _last_stage(maps: dict[str, int], parent: str = "") -> str | None:
    """The last child of a module that returns a map, or the last stage inside a later child that has smaller maps.

    ``maps`` is that of ``_feature_maps``, and ``parent`` the module's name with a dot, or empty for the network.
    """
    inside = [name for name in maps if name.startswith(parent)]
    child_of = {name: parent + name.removeprefix(parent).split(".")[0] for name in inside}
    stage = next((name for name in reversed(inside) if child_of[name] == name), None)
    after = inside[inside.index(stage) + 1 :] if stage else inside
    deeper = [name for name in after if child_of[name] not in maps]
    smallest = min(reversed(deeper), key=maps.__getitem__, default=None)
    if smallest is not None and (stage is None or maps[smallest] < maps[stage]):
        return _last_stage(maps, f"{child_of[smallest]}.")
    return stage


def _feature_maps(network: nn.Module, image_size: int) -> dict[str, int]:
    """The modules that return a map of more than one unit, in order of execution, and the units along its side.

    Only square maps count, like the images, which excludes ``(N, H, W, C)``. A module that is called several times,
    such as a shared ReLU, counts only if there is no other.
    """
    maps: dict[str, int] = {}
    calls: Counter[str] = Counter()
    hooks = []
    for name, module in network.named_modules():

        def record(_: nn.Module, __: object, output: object, name: str = name) -> None:
            calls[name] += 1
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
                maps[name] = output.shape[3]

        if name:
            hooks.append(module.register_forward_hook(record))
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, image_size, image_size))
    for hook in hooks:
        hook.remove()
    return {name: side for name, side in maps.items() if calls[name] == 1} or maps


def cam(network: nn.Module, images: Tensor, targets: Tensor, layer: str) -> Tensor:
    """Grad-CAM maps ``(N, H, W)`` at the images' size, each scaled to a maximum of 1, or 0 without positive evidence.

    Args:
        network: Returns logits; it is not changed.
        images: ``(N, 3, H, W)``, normalized.
        targets: ``(N,)``: the class to explain for each image.
        layer: Name of the module whose output is explained.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 - an in-place ReLU would overwrite the map
    method = LayerGradCam(network, network.get_submodule(layer))
    maps = [  # in batches: the activations are kept
        method.attribute(batch, classes, relu_attributions=True).detach()
        for batch, classes in zip(images.split(BATCH), targets.split(BATCH), strict=True)
    ]
    upsampled = LayerAttribution.interpolate(torch.cat(maps), images.shape[2:], "bilinear")[:, 0]
    return upsampled / upsampled.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)


def overlay(pixels: np.ndarray, maps: Tensor, opacity: float) -> np.ndarray:
    """Maps in color over images ``(N, H, W, 3)`` uint8, from blue (no evidence) to red (most evidence)."""
    colors = matplotlib.colormaps["turbo"](maps.numpy())[..., :3] * 255
    return ((1 - opacity) * pixels + opacity * colors).round().astype(np.uint8)


def gradcam(
    network: nn.Module,
    predictions: Predictions,
    chosen: Tensor,
    prep: Preprocessing,
    layer: str | None = None,
    target: Target = "both",
    opacity: float = 0.5,
    name: str = "gradcam",
    title: str = "Grad-CAM",
) -> Section:
    """The images with indices ``chosen``, next to the evidence for their true class, their predicted class, or both.

    Without ``layer``, the last stage that returns a feature map is explained. ``opacity`` is that of the evidence.
    """
    layer = find_layer(network, layer, prep.image_size)
    if layer is None:
        return Section(name, title, missing=NO_MAP)
    pixels = predictions.data.images[chosen].numpy()
    inputs = prep.transforms()(predictions.data.images[chosen], seed=0)
    kinds = {"predicted": predictions.predicted, "true": predictions.labels}
    kinds = kinds if target == "both" else {target: kinds[target]}
    maps = [overlay(pixels, cam(network, inputs, labels[chosen], layer), opacity) for labels in kinds.values()]
    tiles = [tile for tiles in zip(pixels, *maps, strict=True) for tile in tiles]
    captions = []
    for index in chosen.tolist():
        captions.append(one_line(predictions.classes[predictions.labels[index]]))
        for label in (int(labels[index]) for labels in kinds.values()):
            probability = percent(float(predictions.probabilities[index, label]), 0)
            captions.append(f"{one_line(predictions.classes[label])} {probability}")
    shown = " and ".join(f"the {kind} class" for kind in kinds)
    caption = (
        f"Each image with its true class, then the evidence for {shown} at {layer}, with the probability: "
        "blue is none, red is most."
    )
    return Section(
        name,
        title,
        {caption: image_grid(tiles, captions, columns=2 * (1 + len(kinds)), classes=predictions.classes)},
        numbers={"layer": layer, "target": target, "opacity": opacity, "images": chosen.tolist()},
    )
