"""LabelledImages: a labeled image set in memory, and its partition into images to train on and images to hold out."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from customresnet.runtime.errors import UserError

Split = Literal["train", "test"]
DEFAULT_IMAGE_SIZE = 32


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """A split, or a part of one, in memory."""

    images: Tensor  # (N, H, W, 3) uint8, RGB
    labels: Tensor  # (N,) int64, indices into classes
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> "LabelledImages":
        return LabelledImages(self.images[indices], self.labels[indices], self.classes)

    def to(self, device: torch.device) -> "LabelledImages":
        return LabelledImages(self.images.to(device), self.labels.to(device), self.classes)


@dataclass(frozen=True)
class Partition:
    """A stratified partition of the training images: each part has the class proportions of the whole.

    ``val_size`` images are held out for validation, and ``train_size`` of the others are trained on (None: all).
    """

    val_size: int
    train_size: int | None
    seed: int

    def split(self, images: LabelledImages) -> tuple[LabelledImages, LabelledImages | None]:
        """Split into the images to train on and those held out."""
        train, held_out = images, None
        train_size = self.count(len(images), len(images.classes))
        if self.val_size:
            train, held_out = self._split_off(images, self.val_size)
        if train_size < len(train):
            train, _ = self._split_off(train, len(train) - train_size)
        return train, held_out

    def count(self, images: int, classes: int) -> int:
        """The number of images to train on, out of ``images``.

        Raises:
            UserError: A part is too small to contain every class.
        """
        rest = images - self.val_size
        train_size = rest if self.train_size is None else self.train_size
        for name, size, total, default in (
            ("val_size", self.val_size, images, 0),
            ("train_size", train_size, rest, rest),
        ):
            if size != default and not classes <= size <= total - classes:
                raise UserError(
                    f"`{name}` {size} does not fit the {total} training images of {classes} classes; "
                    f"choose from {classes} to {total - classes}, or {default}"
                )
        return train_size

    def _split_off(self, images: LabelledImages, size: int) -> tuple[LabelledImages, LabelledImages]:
        """Split into two parts, the second of ``size`` images."""
        from sklearn.model_selection import train_test_split

        indices = np.arange(len(images))
        parts = train_test_split(indices, test_size=size, stratify=images.labels, random_state=self.seed)
        first, second = (images.subset(torch.from_numpy(np.sort(part))) for part in parts)
        return first, second
