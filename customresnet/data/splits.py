"""Splits: the images to train on, to hold out and to test on."""

from collections.abc import Callable

import numpy as np
import torch

from customresnet.data.labelled_images import LabelledImages, Split
from customresnet.data.sources import ImageSet
from customresnet.runtime.errors import UserError
from customresnet.runtime.formatting import listed


class Splits:
    """The images of a source, each split read once, when it is first needed.

    Parts of the training images are stratified: they have the class proportions of the whole.

    Attributes:
        find: Finds the source's images without reading them.
        load: Reads a split.
        val_size: Training images to hold out. If the source has validation images of its own, these are held out, and
            this is their number once they have been found.
        train_size: Training images to use; None: all.
        seed: Chooses the images of both parts.
        notes: What the source's images were understood to be, once they have been found, in words.
    """

    def __init__(
        self,
        find: Callable[[], ImageSet],
        load: Callable[[Split], LabelledImages],
        val_size: int,
        train_size: int | None,
        seed: int,
    ) -> None:
        self.find, self.load = find, load
        self.val_size, self.train_size, self.seed = val_size, train_size, seed
        self.notes: tuple[str, ...] = ()
        self.train: LabelledImages | None = None
        self.val: LabelledImages | None = None
        self.test: LabelledImages | None = None
        self._has_own_val = False
        self._classes: tuple[str, ...] | None = None  # a checkpoint's, in its order

    def read(self, stage: str | None) -> None:
        """Read the images that a stage needs (None: all images) unless they have been read."""
        if self.test is None:
            self._find()
        split_off = self.val_size > 0 and not self._has_own_val
        if self.train is None and (stage in (None, "fit") or (stage == "validate" and split_off)):
            self.train, held_out = self._partition(self._load("train"))
            self.val = held_out or self.val
        if self.val is None and self._has_own_val and stage in (None, "fit", "validate"):
            self.val = self._load("val")
        if self.test is None:
            self.test = self._load("test")

    def training_images(self) -> LabelledImages:
        """The training images, read for this call only unless they have been read before."""
        return self.train or self._partition(self._load("train"))[0]

    def count_training_images(self) -> int:
        """The number of images to train on, counted without reading them."""
        found = self._find()
        return self._count(found.sizes["train"], len(found.classes))

    def order_classes(self, classes: tuple[str, ...]) -> None:
        """Use the order of the classes of a checkpoint."""
        self._classes = classes
        parts = (self.train, self.val, self.test)
        self.train, self.val, self.test = (part and part.in_order_of(classes) for part in parts)

    def _load(self, split: Split) -> LabelledImages:
        images = self.load(split)
        return images.in_order_of(self._classes or images.classes)

    def _find(self) -> ImageSet:
        found = self.find()
        own = found.sizes.get("val", 0)
        if own and self.val_size not in (0, own):
            raise UserError(
                f"`val_size` {self.val_size}: `root` has {own} validation images of its own, which are held out; "
                "leave out `val_size`"
            )
        self.val_size, self._has_own_val, self.notes = own or self.val_size, own > 0, found.notes
        return found

    def _partition(self, images: LabelledImages) -> tuple[LabelledImages, LabelledImages | None]:
        """Split into the images to train on and those held out."""
        train, held_out = images, None
        train_size = self._count(len(images), len(images.classes))
        if self.val_size and not self._has_own_val:
            train, held_out = self._split_off(images, self.val_size, "val_size")
        if train_size < len(train):
            train, _ = self._split_off(train, len(train) - train_size, "train_size")
        return train, held_out

    def _count(self, images: int, classes: int) -> int:
        """The number of images to train on, out of ``images``.

        Raises:
            UserError: A part is too small to contain every class.
        """
        val_size = 0 if self._has_own_val else self.val_size
        rest = images - val_size
        train_size = rest if self.train_size is None else self.train_size
        for name, size, total, default in (("val_size", val_size, images, 0), ("train_size", train_size, rest, rest)):
            if size != default and not classes <= size <= total - classes:
                raise UserError(
                    f"`{name}` {size} does not fit the {total} training images of {classes} classes; "
                    f"choose from {classes} to {total - classes}, or {default}"
                )
        return train_size

    def _split_off(self, images: LabelledImages, size: int, option: str) -> tuple[LabelledImages, LabelledImages]:
        """Split into two parts, the second of ``size`` images; ``option`` asks for it."""
        from sklearn.model_selection import train_test_split

        counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
        if few := [name for name, count in zip(images.classes, counts, strict=True) if count < 2]:
            raise UserError(
                f"`{option}` {getattr(self, option)} needs at least 2 training images of each class; "
                f"there is only 1 of {listed(few, 5)}"
            )
        indices = np.arange(len(images))
        parts = train_test_split(indices, test_size=size, stratify=images.labels, random_state=self.seed)
        first, second = (images.subset(torch.from_numpy(np.sort(part))) for part in parts)
        return first, second
