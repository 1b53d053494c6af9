"""LabelledImages: a labeled image set in memory, and its classes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from customresnet.runtime.formatting import listed

Split = Literal["train", "val", "test"]
DEFAULT_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 1024
"""Side of an image in pixels. Whole data sets are held in memory: 1,000 of the largest take 3 GB."""


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

    def in_order_of(self, classes: tuple[str, ...]) -> "LabelledImages":
        """The same images with the classes in another order, as a checkpoint has them; unchanged if classes differ."""
        if classes == self.classes or sorted(classes) != sorted(self.classes):
            return self
        labels = torch.tensor([classes.index(name) for name in self.classes])
        return LabelledImages(self.images, labels[self.labels], classes)


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort class names; as numbers if all of them are numbers."""
    names = list(names)
    if all(re.fullmatch(r"[+-]?\d+(\.\d+)?", name) for name in names):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def class_differences(names: Mapping[str, Iterable[str]]) -> str:
    """The classes of only one of two sets, in words; empty if there are none. ``names`` are the classes of each set."""
    (first, ours), (second, theirs) = ((name, set(classes)) for name, classes in names.items())
    only = {first: sorted(ours - theirs), second: sorted(theirs - ours)}
    return "; ".join(f"only in {name}: {listed(classes, 5)}" for name, classes in only.items() if classes)
