"""The transform backend that prepares images one by one, with Albumentations."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from customresnet.data.transforms.policy import Augmentation, Channels

if TYPE_CHECKING:
    from albumentations import BasicTransform, Compose


@dataclass(frozen=True)
class Step:
    """One step of the policy. ``done`` describes an image after it ("flipped"); ``build`` creates the transform."""

    description: str
    done: str
    build: Callable[[], "BasicTransform"]


class AlbumentationsBackend:
    """Augment and normalize images one by one, with ``mean`` and ``std`` of pixels in [0, 1].

    Every random value is a pure function of the seed of a batch. Cutout follows normalization and fills with 0, which
    is exactly the mean.
    """

    def __init__(self, augmentation: Augmentation, mean: Channels, std: Channels, image_size: int) -> None:
        self.augmentation, self.mean, self.std, self.image_size = augmentation, mean, std, image_size
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
        a, size = self.augmentation, self.image_size
        if a.pad:
            yield Step(f"Pad {a.pad} (to {size + 2 * a.pad}x{size + 2 * a.pad}, {a.border})", "padded", self._pad)
            yield Step(f"RandomCrop {size}", "cropped", lambda: _albumentations().RandomCrop(size, size))
        if a.flip:
            yield Step(f"HorizontalFlip p={a.flip:g}", "flipped", lambda: _albumentations().HorizontalFlip(p=a.flip))
        g = a.shift_scale_rotate
        if g.p:
            amounts = f"shift={g.shift:g} scale={g.scale:g} rotate={g.rotate:g}"
            yield Step(f"ShiftScaleRotate {amounts} p={g.p:g} ({a.border})", "moved", self._shift_scale_rotate)
        c = a.color_jitter
        if c.p:
            amounts = f"{c.brightness:g}/{c.contrast:g}/{c.saturation:g}/{c.hue:g}"
            yield Step(f"ColorJitter {amounts} p={c.p:g}", "recolored", self._color_jitter)
        if a.gray:
            yield Step(f"ToGray p={a.gray:g}", "made gray", lambda: _albumentations().ToGray(p=a.gray))
        yield Step(f"Normalize mean={self.mean} std={self.std}", "normalized", self._normalize)
        if a.cutout and a.cutout_p:
            p = f" p={a.cutout_p:g}" if a.cutout_p < 1 else ""
            yield Step(f"Cutout {a.cutout}x{a.cutout}{p} (filled with the mean)", "cutout", self._cutout)

    def _pad(self) -> "BasicTransform":
        return _albumentations().Pad(padding=self.augmentation.pad, border_mode=self._border_mode())

    def _shift_scale_rotate(self) -> "BasicTransform":
        g = self.augmentation.shift_scale_rotate
        return _albumentations().Affine(
            translate_percent={"x": (-g.shift, g.shift), "y": (-g.shift, g.shift)},
            scale=(1 - g.scale, 1 + g.scale),
            rotate=(-g.rotate, g.rotate),
            keep_ratio=True,
            border_mode=self._border_mode(),
            p=g.p,
        )

    def _color_jitter(self) -> "BasicTransform":
        c = self.augmentation.color_jitter
        return _albumentations().ColorJitter(
            brightness=(1 - c.brightness, 1 + c.brightness),
            contrast=(1 - c.contrast, 1 + c.contrast),
            saturation=(1 - c.saturation, 1 + c.saturation),
            hue=(-c.hue, c.hue),
            p=c.p,
        )

    def _normalize(self) -> "BasicTransform":
        return _albumentations().Normalize(mean=self.mean, std=self.std, max_pixel_value=255.0)

    def _cutout(self) -> "BasicTransform":
        side = (self.augmentation.cutout, self.augmentation.cutout)
        return _albumentations().CoarseDropout(
            num_holes_range=(1, 1),
            hole_height_range=side,
            hole_width_range=side,
            fill=0,
            p=self.augmentation.cutout_p,
        )

    def _border_mode(self) -> int:
        import cv2

        return {"reflect_101": cv2.BORDER_REFLECT_101, "replicate": cv2.BORDER_REPLICATE}[self.augmentation.border]


def _albumentations() -> ModuleType:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise the import checks for updates online
    import albumentations
    import cv2

    cv2.setNumThreads(0)  # threads do not help with 32x32 images, and compete with the workers for cores
    return albumentations
