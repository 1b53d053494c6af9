"""The one augmentation policy: pad, random crop, horizontal flip, normalise, cutout."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image besides normalisation; every part can be switched off with 0.

    Args:
        pad: Pixels mirrored onto each side before a random crop back to the image's size.
        flip: Probability of a horizontal flip.
        cutout: Side in pixels of the square hole cut wholly inside the image and filled with the mean colour.
    """

    pad: int = 4
    flip: float = 0.5
    cutout: int = 8


NO_AUGMENTATION = Augmentation(pad=0, flip=0.0, cutout=0)
"""Normalise only: how test images are prepared."""


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

    def _build(self) -> Any:
        # Without this the import asks the package registry whether it is up to date.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A
        import cv2

        cv2.setNumThreads(0)  # 32x32 images gain nothing from threads, and workers would fight over the cores
        a, size = self.augmentation, self.image_size
        steps: list[Any] = []
        if a.pad:
            steps += [A.Pad(padding=a.pad, border_mode=cv2.BORDER_REFLECT_101), A.RandomCrop(size, size)]
        if a.flip:
            steps.append(A.HorizontalFlip(p=a.flip))
        steps.append(A.Normalize(mean=self.mean, std=self.std, max_pixel_value=255.0))
        if a.cutout:
            hole = (a.cutout, a.cutout)
            steps.append(
                A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=hole, hole_width_range=hole, fill=0, p=1.0)
            )
        return A.Compose(steps)

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Prepare a batch: ``(N, H, W, 3)`` uint8 -> ``(N, 3, H, W)`` float32 in channels_last memory order.

        Equal seeds give equal pixels, whichever process runs this.
        """
        if self._compose is None:
            self._compose = self._build()
        self._compose.set_random_seed(seed)
        prepared = np.stack([self._compose(image=image)["image"] for image in images.numpy()])
        return torch.from_numpy(prepared).permute(0, 3, 1, 2)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compose": None}  # built anew, late, in each worker

    def __str__(self) -> str:
        a = self.augmentation
        steps = []
        if a.pad:
            padded = self.image_size + 2 * a.pad
            steps += [f"Pad {a.pad} (to {padded}x{padded}, reflect_101)", f"RandomCrop {self.image_size}"]
        if a.flip:
            steps.append(f"HorizontalFlip p={a.flip:g}")
        steps.append(f"Normalize mean={self.mean} std={self.std}")
        if a.cutout:
            steps.append(f"Cutout {a.cutout}x{a.cutout} (filled with the mean)")
        return " -> ".join(steps)


def denormalize(images: Tensor, mean: Channels, std: Channels) -> Tensor:
    """``(N, 3, H, W)`` normalised floats back to ``(N, H, W, 3)`` uint8 pixels."""
    shape = (1, 3, 1, 1)
    pixels = images.float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
