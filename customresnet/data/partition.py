"""Which training images are trained on, and which are held out."""

from dataclasses import dataclass

import numpy as np
import torch

from customresnet.data.labelled_images import LabelledImages
from customresnet.runtime.errors import UserError


@dataclass(frozen=True)
class Partition:
    """Parts of the training images in which the classes' shares are those of the whole.

    Attributes:
        val_size: Images held out for validation; 0 is none.
        train_size: Images trained on; None is all the others.
        seed: Which images go where.
    """

    val_size: int
    train_size: int | None
    seed: int

    def of(self, images: LabelledImages) -> tuple[LabelledImages, LabelledImages | None]:
        """The images to train on, and those held out."""
        train, held_out = images, None
        size = self.count(len(images), len(images.classes))
        if self.val_size:
            train, held_out = self._split(images, self.val_size)
        if size < len(train):
            train, _ = self._split(train, len(train) - size)
        return train, held_out

    def count(self, images: int, classes: int) -> int:
        """How many of so many images are trained on.

        Raises:
            UserError: A part would be without an image of some class.
        """
        if self.val_size:
            _check("val_size", self.val_size, images, classes, whole=0)
        rest = images - self.val_size
        if self.train_size in (None, rest):
            return rest
        _check("train_size", self.train_size, rest, classes, whole=rest)
        return self.train_size

    def _split(self, images: LabelledImages, second: int) -> tuple[LabelledImages, LabelledImages]:
        """Two parts, the second with so many images."""
        from sklearn.model_selection import train_test_split

        every = np.arange(len(images))
        parts = train_test_split(every, test_size=second, stratify=images.labels, random_state=self.seed)
        first, rest = (images.subset(torch.from_numpy(np.sort(part))) for part in parts)
        return first, rest


def _check(name: str, size: int, images: int, classes: int, whole: int) -> None:
    """Refuse a part that cannot have an image of each class, or leaves one out of the rest."""
    if not classes <= size <= images - classes:
        raise UserError(
            f"--data.{name} {size} does not fit the {images} training images of {classes} classes; "
            f"choose from {classes} to {images - classes}, or {whole}"
        )
