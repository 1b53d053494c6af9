"""The augmentation policy: pad, random crop, flip, shift, scale, rotate, colours, normalise, cutout."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from customresnet.runtime.errors import UserError

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
CIFAR100_CONSTANTS = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

Channels = tuple[float, float, float]
Border = Literal["reflect_101", "replicate"]


@dataclass(frozen=True)
class ShiftScaleRotate:
    """Move, enlarge or shrink, and turn an image, each by a random amount.

    Args:
        shift: Furthest shift along either side, as a share of it.
        scale: Furthest change of size, as a share of it.
        rotate: Furthest turn, in degrees.
        p: Share of the images that this happens to; 0 is off.
    """

    shift: float = 0.1
    scale: float = 0.1
    rotate: float = 15.0
    p: float = 0.0


@dataclass(frozen=True)
class ColorJitter:
    """Change an image's colours, each by a random amount.

    Args:
        brightness: Furthest change of the brightness, as a share of it.
        contrast: Furthest change of the contrast, likewise.
        saturation: Furthest change of the saturation, likewise.
        hue: Furthest turn of the hue, as a share of the colour circle; at most 0.5.
        p: Share of the images that this happens to; 0 is off.
    """

    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.2
    p: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image besides normalisation; every part can be switched off with 0.

    Args:
        pad: Pixels added on each side before a random crop back to the image's size.
        flip: Probability of a horizontal flip.
        cutout: Side in pixels of the square hole cut wholly inside the image and filled with the mean colour.
        cutout_p: Probability of the hole.
        border: What lies beyond an image's edge: the image mirrored, or its edge repeated.
        shift_scale_rotate: Random shift, scale and rotation, after the flip.
        color_jitter: Random brightness, contrast, saturation and hue.
        gray: Probability of taking all colour away.
    """

    pad: int = 4
    flip: float = 0.5
    cutout: int = 8
    cutout_p: float = 1.0
    border: Border = "reflect_101"
    shift_scale_rotate: ShiftScaleRotate = ShiftScaleRotate()
    color_jitter: ColorJitter = ColorJitter()
    gray: float = 0.0

    @classmethod
    def of(cls, options: dict[str, Any]) -> "Augmentation":
        """The policy in a run's config.yaml."""
        parts = {"shift_scale_rotate": ShiftScaleRotate, "color_jitter": ColorJitter}
        return cls(**{name: parts[name](**value) if name in parts else value for name, value in options.items()})

    def check(self, size: int) -> None:
        """Refuse what makes no sense for images of ``size`` pixels a side."""
        geometry, colors = self.shift_scale_rotate, self.color_jitter
        probabilities = {
            "flip": self.flip,
            "gray": self.gray,
            "cutout_p": self.cutout_p,
            "shift_scale_rotate.p": geometry.p,
            "color_jitter.p": colors.p,
        }
        for name, p in probabilities.items():
            if not 0 <= p <= 1:
                raise UserError(f"--data.augment.{name} is a probability, from 0 to 1; received {p}")
        limits = {
            "pad": (self.pad, size - 1, " pixels"),
            "cutout": (self.cutout, size, " pixels"),
            "shift_scale_rotate.shift": (geometry.shift, 1, ""),
            "shift_scale_rotate.scale": (geometry.scale, 0.99, ""),
            "shift_scale_rotate.rotate": (geometry.rotate, 180, " degrees"),
            "color_jitter.brightness": (colors.brightness, 1, ""),
            "color_jitter.contrast": (colors.contrast, 1, ""),
            "color_jitter.saturation": (colors.saturation, 1, ""),
            "color_jitter.hue": (colors.hue, 0.5, ""),
        }
        for name, (value, limit, unit) in limits.items():
            if not 0 <= value <= limit or math.isnan(value):
                raise UserError(f"--data.augment.{name} must be from 0 to {limit}{unit}; received {value}")


NO_AUGMENTATION = Augmentation(pad=0, flip=0.0, cutout=0)
"""Normalise only: how test images are prepared."""


def denormalize(images: Tensor, mean: Channels, std: Channels) -> Tensor:
    """``(N, 3, H, W)`` normalised floats back to ``(N, H, W, 3)`` uint8 pixels."""
    shape = (1, 3, 1, 1)
    pixels = images.float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
