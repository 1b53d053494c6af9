"""The one augmentation policy: pad, random crop, flip, shift, scale, rotate, colours, normalise, cutout."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from customresnet.errors import UserError

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


@dataclass(frozen=True)
class Step:
    """One step of the policy.

    Attributes:
        words: What it does.
        done: What an image is after it.
        build: Gives Albumentations' transform.
    """

    words: str
    done: str
    build: Callable[[], Any]


class AlbumentationsEngine:
    """Apply the policy image by image with Albumentations.

    Holes are cut after normalising and filled with 0, which is the mean exactly.

    Args:
        augmentation: The policy.
        mean: Per-channel mean of pixels scaled to [0, 1].
        std: Per-channel standard deviation of the same.
        image_size: Side of the images in pixels.
    """

    def __init__(self, augmentation: Augmentation, mean: Channels, std: Channels, image_size: int) -> None:
        self.augmentation, self.mean, self.std, self.image_size = augmentation, mean, std, image_size
        self._compose: Any = None

    def steps(self) -> Iterator[Step]:
        """The policy, in order."""
        a, size = self.augmentation, self.image_size
        if a.pad:
            yield Step(f"Pad {a.pad} (to {size + 2 * a.pad}x{size + 2 * a.pad}, {a.border})", "padded", self._pad)
            yield Step(f"RandomCrop {size}", "cropped", lambda: _albumentations().RandomCrop(size, size))
        if a.flip:
            yield Step(f"HorizontalFlip p={a.flip:g}", "flipped", lambda: _albumentations().HorizontalFlip(p=a.flip))
        g = a.shift_scale_rotate
        if g.p:
            words = f"ShiftScaleRotate shift={g.shift:g} scale={g.scale:g} rotate={g.rotate:g} p={g.p:g} ({a.border})"
            yield Step(words, "moved", self._shift_scale_rotate)
        c = a.color_jitter
        if c.p:
            amounts = f"{c.brightness:g}/{c.contrast:g}/{c.saturation:g}/{c.hue:g}"
            yield Step(f"ColorJitter {amounts} p={c.p:g}", "recoloured", self._color_jitter)
        if a.gray:
            yield Step(f"ToGray p={a.gray:g}", "made grey", lambda: _albumentations().ToGray(p=a.gray))
        yield Step(f"Normalize mean={self.mean} std={self.std}", "normalised", self._normalize)
        if a.cutout and a.cutout_p:
            p = f" p={a.cutout_p:g}" if a.cutout_p < 1 else ""
            yield Step(f"Cutout {a.cutout}x{a.cutout}{p} (filled with the mean)", "cutout", self._cutout)

    def _pad(self) -> Any:
        return _albumentations().Pad(padding=self.augmentation.pad, border_mode=self._border_mode())

    def _border_mode(self) -> int:
        import cv2

        return {"reflect_101": cv2.BORDER_REFLECT_101, "replicate": cv2.BORDER_REPLICATE}[self.augmentation.border]

    def _shift_scale_rotate(self) -> Any:
        g = self.augmentation.shift_scale_rotate
        return _albumentations().Affine(
            translate_percent={"x": (-g.shift, g.shift), "y": (-g.shift, g.shift)},
            scale=(1 - g.scale, 1 + g.scale),
            rotate=(-g.rotate, g.rotate),
            keep_ratio=True,
            border_mode=self._border_mode(),
            p=g.p,
        )

    def _color_jitter(self) -> Any:
        c = self.augmentation.color_jitter
        return _albumentations().ColorJitter(
            brightness=(1 - c.brightness, 1 + c.brightness),
            contrast=(1 - c.contrast, 1 + c.contrast),
            saturation=(1 - c.saturation, 1 + c.saturation),
            hue=(-c.hue, c.hue),
            p=c.p,
        )

    def _normalize(self) -> Any:
        return _albumentations().Normalize(mean=self.mean, std=self.std, max_pixel_value=255.0)

    def _cutout(self) -> Any:
        side = (self.augmentation.cutout, self.augmentation.cutout)
        return _albumentations().CoarseDropout(
            num_holes_range=(1, 1),
            hole_height_range=side,
            hole_width_range=side,
            fill=0,
            p=self.augmentation.cutout_p,
        )

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Prepare a batch: ``(N, H, W, 3)`` uint8 -> ``(N, 3, H, W)`` float32 in channels_last memory order.

        Equal seeds give equal pixels, whichever process runs this.
        """
        if self._compose is None:
            self._compose = _albumentations().Compose([step.build() for step in self.steps()])
        self._compose.set_random_seed(seed)
        prepared = np.stack([self._compose(image=image)["image"] for image in images.numpy()])
        return torch.from_numpy(prepared).permute(0, 3, 1, 2)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compose": None}  # built anew, late, in each worker

    def __str__(self) -> str:
        return " -> ".join(step.words for step in self.steps())


def _albumentations() -> Any:
    # Without this the import asks the package registry whether it is up to date.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations
    import cv2

    cv2.setNumThreads(0)  # 32x32 images gain nothing from threads, and workers would fight over the cores
    return albumentations


def denormalize(images: Tensor, mean: Channels, std: Channels) -> Tensor:
    """``(N, 3, H, W)`` normalised floats back to ``(N, H, W, 3)`` uint8 pixels."""
    shape = (1, 3, 1, 1)
    pixels = images.float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
