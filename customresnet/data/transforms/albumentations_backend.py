"""The transform backend that prepares images one by one, with Albumentations."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from customresnet.data.transforms.policy import Augmentation, Channels

if TYPE_CHECKING:
    from albumentations import BasicTransform, Compose


BORDERS = {"reflect_101": 4, "replicate": 1}
"""cv2.BORDER_REFLECT_101 and cv2.BORDER_REPLICATE."""


@dataclass(frozen=True)
class Step:
    """One step of the policy."""

    description: str
    done: str  # describes an image after it, such as "flipped"
    transform: str  # a class of Albumentations
    options: dict[str, Any]

    def build(self) -> "BasicTransform":
        return getattr(_albumentations(), self.transform)(**self.options)


class AlbumentationsBackend:
    """Augment and normalize images one by one, with ``mean`` and ``std`` of pixels in [0, 1].

    Every random value is a pure function of the seed of a batch. Cutout follows normalization and fills with 0, which
    is exactly the mean.
    """

    def __init__(self, augmentation: Augmentation, mean: Channels, std: Channels, image_size: int) -> None:
        self.augmentation, self.mean, self.std, self.image_size = augmentation.scaled(image_size), mean, std, image_size
        self._compose: Compose | None = None

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Prepare a batch: ``(N, H, W, 3)`` uint8 to ``(N, 3, H, W)`` float32 in channels_last memory format."""
        if self._compose is None:
            self._compose = _albumentations().Compose([step.build() for step in self.steps()])
        self._compose.set_random_seed(seed)
        prepared = np.stack([self._compose(image=image)["image"] for image in images.numpy()])
        return torch.from_numpy(prepared).permute(0, 3, 1, 2)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compose": None}  # each worker builds its own

    def __str__(self) -> str:
        return " -> ".join(step.description for step in self.steps())

    def steps(self) -> Iterator[Step]:
        """The steps in order, without those that are turned off."""
        a, size, border_mode = self.augmentation, self.image_size, BORDERS[self.augmentation.border]
        if a.pad:
            padded = size + 2 * a.pad
            options: dict[str, Any] = {"padding": a.pad, "border_mode": border_mode}
            yield Step(f"Pad {a.pad} (to {padded}x{padded}, {a.border})", "padded", "Pad", options)
            yield Step(f"RandomCrop {size}", "cropped", "RandomCrop", {"height": size, "width": size})
        if a.flip:
            yield Step(f"HorizontalFlip p={a.flip:g}", "flipped", "HorizontalFlip", {"p": a.flip})
        g = a.shift_scale_rotate
        if g.p:
            amounts = f"shift={g.shift:g} scale={g.scale:g} rotate={g.rotate:g}"
            description = f"ShiftScaleRotate {amounts} p={g.p:g} ({a.border})"
            shift = (-g.shift, g.shift)
            options = {
                "translate_percent": {"x": shift, "y": shift},
                "scale": (1 - g.scale, 1 + g.scale),
                "rotate": (-g.rotate, g.rotate),
                "keep_ratio": True,
                "border_mode": border_mode,
                "p": g.p,
            }
            yield Step(description, "moved", "Affine", options)
        c = a.color_jitter
        if c.p:
            amounts = f"{c.brightness:g}/{c.contrast:g}/{c.saturation:g}/{c.hue:g}"
            factors = {name: (1 - s, 1 + s) for name, s in asdict(c).items() if name not in ("hue", "p")}
            options = {**factors, "hue": (-c.hue, c.hue), "p": c.p}
            yield Step(f"ColorJitter {amounts} p={c.p:g}", "recolored", "ColorJitter", options)
        if a.gray:
            yield Step(f"ToGray p={a.gray:g}", "made gray", "ToGray", {"p": a.gray})
        options = {"mean": self.mean, "std": self.std, "max_pixel_value": 255.0}
        yield Step(f"Normalize mean={self.mean} std={self.std}", "normalized", "Normalize", options)
        if a.cutout and a.cutout_p:
            p, side = f" p={a.cutout_p:g}" if a.cutout_p < 1 else "", (a.cutout, a.cutout)
            options = {"num_holes_range": (1, 1), "hole_height_range": side, "hole_width_range": side, "fill": 0}
            description = f"Cutout {a.cutout}x{a.cutout}{p} (filled with the mean)"
            yield Step(description, "cutout", "CoarseDropout", {**options, "p": a.cutout_p})


def _albumentations() -> ModuleType:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise the import checks for updates online
    import albumentations
    import cv2

    cv2.setNumThreads(0)  # threads do not help with 32x32 images, and compete with the workers for cores
    return albumentations
