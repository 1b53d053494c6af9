"""Grad-CAM: where in an image a network finds its evidence for a class.

Source: Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", 2017,
https://arxiv.org/abs/1610.02391. The maps are computed by captum.
"""

import copy
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runtime.errors import UserError
from customresnet.runtime.pictures import image_grid

Target = Literal["true", "predicted", "both"]
BATCH = 100


def find_layer(network: nn.Module, name: str | None, image_size: int) -> str:
    """The name of the layer to look at, checked; None is the last part of the network that still gives a map.

    Raises:
        UserError: There is no such layer, or what it gives is no map ``(N, C, H, W)``; the message lists the layers.
    """
    maps = _maps(network, image_size)
    if name is None:
        stages = [layer for layer in maps if "." not in layer and not _pools(network.get_submodule(layer))]
        return (stages or maps)[-1]
    if name not in maps:
        raise UserError(f"--gallery.layer {name}: no layer of this name that gives a map; layers: {', '.join(maps)}")
    return name


def _pools(module: nn.Module) -> bool:
    return "Pool" in type(module).__name__


def _maps(network: nn.Module, image_size: int) -> list[str]:
    """Names of the modules whose output is a map of more than one place, in order of execution."""
    names: list[str] = []
    hooks = []
    for name, module in network.named_modules():

        def note(_: nn.Module, __: object, output: object, name: str = name) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
                names.append(name)

        if name:
            hooks.append(module.register_forward_hook(note))
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, image_size, image_size))
    for hook in hooks:
        hook.remove()
    return names


def cam(network: nn.Module, images: Tensor, targets: Tensor, layer: str) -> Tensor:
    """Grad-CAM maps ``(N, H, W)`` from 0 to 1, enlarged to the images' size.

    Each map is divided by its own maximum; one without any positive evidence is all 0.

    Args:
        network: Gives logits; it is left as it is.
        images: ``(N, 3, H, W)``, normalised.
        targets: ``(N,)``: the class to explain of each image.
        layer: Name of the module whose output is explained.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 - a ReLU in place would overwrite the map that is looked at
    method = LayerGradCam(network, network.get_submodule(layer))
    found = [  # a few at a time: each keeps its activations
        method.attribute(some, classes, relu_attributions=True).detach()
        for some, classes in zip(images.split(BATCH), targets.split(BATCH), strict=True)
    ]
    maps = LayerAttribution.interpolate(torch.cat(found), images.shape[2:], "bilinear")[:, 0]
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)


def overlay(pixels: np.ndarray, maps: Tensor, opacity: float) -> np.ndarray:
    """Maps in colour over images ``(N, H, W, 3)`` uint8: no evidence is blue, the most is red."""
    import matplotlib

    colors = matplotlib.colormaps["turbo"](maps.numpy())[..., :3] * 255
    return ((1 - opacity) * pixels + opacity * colors).round().astype(np.uint8)


def gradcam(
    network: nn.Module,
    outputs: Predictions,
    chosen: Tensor,
    prep: Preprocessing,
    layer: str | None = None,
    target: Target = "both",
    opacity: float = 0.5,
    name: str = "gradcam",
    title: str = "Grad-CAM",
) -> Section:
    """Images beside the evidence for their true class, their predicted class, or both.

    Args:
        network: The network.
        outputs: Its answers.
        chosen: Indices of the images.
        prep: How images are prepared for it.
        layer: Name of a layer; None is the last stage before the pooling.
        target: Whose evidence.
        opacity: Of the map over the image, from 0 to 1.
        name: The view's name.
        title: The view's title.
    """
    layer = find_layer(network, layer, prep.image_size)
    pixels = outputs.data.images[chosen].numpy()
    inputs = prep.engine()(outputs.data.images[chosen], seed=0)
    wanted = {"predicted": outputs.predicted, "true": outputs.labels}
    wanted = wanted if target == "both" else {target: wanted[target]}
    maps = {kind: cam(network, inputs, labels[chosen], layer) for kind, labels in wanted.items()}
    tiles, captions = [], []
    for place, index in enumerate(chosen.tolist()):
        true = outputs.classes[int(outputs.labels[index])]
        tiles.append(pixels[place])
        captions.append(true)
        for kind, labels in wanted.items():
            tiles.append(overlay(pixels[place : place + 1], maps[kind][place : place + 1], opacity)[0])
            label = int(labels[index])
            captions.append(f"{outputs.classes[label]} {float(outputs.probabilities[index, label]):.0%}")
    per_image = 1 + len(wanted)
    shown = " and ".join(f"the {kind} class" for kind in wanted)
    sentence = f"Each image with its true class, and the evidence for {shown} at {layer}: blue none, red most."
    return Section(
        name,
        title,
        {sentence: image_grid(np.stack(tiles), captions, columns=2 * per_image)},
        numbers={"layer": layer, "target": target, "opacity": opacity, "images": chosen.tolist()},
    )
