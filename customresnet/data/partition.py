"""Partition: which training images to train on, and which to hold out."""

from dataclasses import dataclass

import numpy as np
import torch

from customresnet.data.labelled_images import LabelledImages
from customresnet.runtime.errors import UserError


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
        if self.val_size:
            _check("val_size", self.val_size, images, classes, default=0)
        rest = images - self.val_size
        if self.train_size in (None, rest):
            return rest
        _check("train_size", self.train_size, rest, classes, default=rest)
        return self.train_size

    def _split_off(self, images: LabelledImages, size: int) -> tuple[LabelledImages, LabelledImages]:
        """Split into two parts, the second of ``size`` images."""
        from sklearn.model_selection import train_test_split

        indices = np.arange(len(images))
        parts = train_test_split(indices, test_size=size, stratify=images.labels, random_state=self.seed)
        first, second = (images.subset(torch.from_numpy(np.sort(part))) for part in parts)
        return first, second


def _check(name: str, size: int, images: int, classes: int, default: int) -> None:
    """Raise a UserError if a part, or the rest, is too small to contain every class."""
    if not classes <= size <= images - classes:
        raise UserError(
            f"`{name}` {size} does not fit the {images} training images of {classes} classes; "
            f"choose from {classes} to {images - classes}, or {default}"
        )
