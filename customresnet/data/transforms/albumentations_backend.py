"""The augmentation policy image by image, with Albumentations."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from customresnet.data.transforms.policy import Augmentation, Channels


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


class AlbumentationsBackend:
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
