"""The augmentation policy and the normalization constants."""

from dataclasses import dataclass, replace
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
    """Shift, scale and rotate an image by random amounts.

    Args:
        shift: Maximum shift along each axis, as a fraction of the image size.
        scale: Maximum change of scale, as a fraction.
        rotate: Maximum rotation in degrees.
        p: Probability of applying it; 0 switches it off.
    """

    shift: float = 0.1
    scale: float = 0.1
    rotate: float = 15.0
    p: float = 0.0


@dataclass(frozen=True)
class ColorJitter:
    """Change the colors of an image by random amounts.

    Args:
        brightness: Maximum change of brightness, as a fraction.
        contrast: Maximum change of contrast, as a fraction.
        saturation: Maximum change of saturation, as a fraction.
        hue: Maximum rotation of the hue, as a fraction of the color circle; at most 0.5.
        p: Probability of applying it; 0 switches it off.
    """

    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.2
    p: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """How training images are augmented. 0 turns a step off.

    Args:
        pad: Pixels added on each side before a random crop to the original size. Default: 4/32 of the image's side.
        flip: Probability of a horizontal flip.
        cutout: Side in pixels of a square hole, entirely inside the image, filled with the mean color. Default: 8/32 of
            the image's side.
        cutout_p: Probability of the hole.
        border: What fills the padding: the mirrored image (reflect_101) or its edge pixels (replicate).
        shift_scale_rotate: Random shift, scale and rotation, after the flip.
        color_jitter: Random brightness, contrast, saturation and hue.
        gray: Probability of converting to grayscale.
    """

    pad: int | None = None
    flip: float = 0.5
    cutout: int | None = None
    cutout_p: float = 1.0
    border: Border = "reflect_101"
    shift_scale_rotate: ShiftScaleRotate = ShiftScaleRotate()
    color_jitter: ColorJitter = ColorJitter()
    gray: float = 0.0

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Augmentation":
        """The policy in a run's config.yaml."""
        parts = {"shift_scale_rotate": ShiftScaleRotate, "color_jitter": ColorJitter}
        return cls(**{name: parts[name](**value) if name in parts else value for name, value in config.items()})

    def scaled(self, image_size: int) -> "Augmentation":
        """The policy for images of ``image_size`` pixels a side, with the values of pad and cutout."""
        pad = round(image_size * 4 / 32) if self.pad is None else self.pad
        cutout = round(image_size * 8 / 32) if self.cutout is None else self.cutout
        return replace(self, pad=pad, cutout=cutout)

    def check(self, image_size: int) -> None:
        """Raise a UserError if a value is out of range for images of ``image_size`` pixels a side."""
        geometry, colors = self.shift_scale_rotate, self.color_jitter
        limits = {
            "pad": (self.pad or 0, image_size - 1, " pixels"),
            "flip": (self.flip, 1, ""),
            "cutout": (self.cutout or 0, image_size, " pixels"),
            "cutout_p": (self.cutout_p, 1, ""),
            "shift_scale_rotate.shift": (geometry.shift, 1, ""),
            "shift_scale_rotate.scale": (geometry.scale, 0.99, ""),
            "shift_scale_rotate.rotate": (geometry.rotate, 180, " degrees"),
            "shift_scale_rotate.p": (geometry.p, 1, ""),
            "color_jitter.brightness": (colors.brightness, 1, ""),
            "color_jitter.contrast": (colors.contrast, 1, ""),
            "color_jitter.saturation": (colors.saturation, 1, ""),
            "color_jitter.hue": (colors.hue, 0.5, ""),
            "color_jitter.p": (colors.p, 1, ""),
            "gray": (self.gray, 1, ""),
        }
        for name, (value, limit, unit) in limits.items():
            if not 0 <= value <= limit:  # true for NaN as well
                raise UserError(f"`augment.{name}` must be from 0 to {limit}{unit}; received {value}")


NO_AUGMENTATION = Augmentation(pad=0, flip=0.0, cutout=0)
"""Normalization only, for test images."""


def denormalize(images: Tensor, mean: Channels, std: Channels) -> Tensor:
    """Convert ``(N, 3, H, W)`` normalized floats back to ``(N, H, W, 3)`` uint8 pixels."""
    shape = (1, 3, 1, 1)
    pixels = images.float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
