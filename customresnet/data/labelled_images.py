"""LabelledImages: a labeled image set in memory."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Split = Literal["train", "test"]
DEFAULT_IMAGE_SIZE = 32


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """A split, or a part of one, in memory.

    Attributes:
        images: ``(N, H, W, 3)`` uint8, RGB.
        labels: ``(N,)`` int64, indices into ``classes``.
        classes: Class names.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> "LabelledImages":
        return LabelledImages(self.images[indices], self.labels[indices], self.classes)

    def to(self, device: torch.device) -> "LabelledImages":
        return LabelledImages(self.images.to(device), self.labels.to(device), self.classes)
