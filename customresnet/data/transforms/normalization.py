"""The mean and standard deviation that normalize images: given, a checkpoint's, or the training images' own."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from torch import Tensor

from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.policy import CIFAR10_MEAN, CIFAR10_STD, CIFAR100_CONSTANTS, Channels
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runtime.errors import UserError

GivenConstants = Channels | Literal["auto"]


class Normalization:
    """The constants of a data module. Those that are ``auto`` are computed when they are first needed.

    Attributes:
        given: Mean and standard deviation as given, or the source's own.
        checkpoint: If there is one, its constants are used instead of computing them.
    """

    def __init__(self, source: str, mean: GivenConstants | None, std: GivenConstants | None) -> None:
        known = CIFAR100_CONSTANTS if source == "cifar100" else (CIFAR10_MEAN, CIFAR10_STD)
        default: tuple[GivenConstants, GivenConstants] = ("auto", "auto") if source == "folder" else known
        self.given = mean or default[0], std or default[1]
        self.checkpoint: Preprocessing | None = None
        self._computed: tuple[Channels, Channels] | None = None
        if self.given[1] != "auto" and min(self.given[1]) <= 0:
            raise UserError(f"`std` must be positive; received {list(self.given[1])}")

    def constants(self, training_images: Callable[[], LabelledImages]) -> tuple[Channels, Channels]:
        """Mean and standard deviation. ``training_images`` is called only to compute them."""
        mean, std = self.given
        if mean != "auto" and std != "auto":
            return mean, std
        if self.checkpoint:
            auto = self.checkpoint.mean, self.checkpoint.std
        else:
            auto = self._computed = self._computed or rounded_constants(training_images().images)
        return auto[0] if mean == "auto" else mean, auto[1] if std == "auto" else std

    def note(self) -> list[str]:
        """What is computed, in words; empty if nothing is."""
        names = [name for name, given in zip(("mean", "std"), self.given, strict=True) if given == "auto"]
        computed = bool(names) and self.checkpoint is None
        return [f"normalization: {' and '.join(names)} computed from the training images"] if computed else []


def rounded_constants(images: Tensor) -> tuple[Channels, Channels]:
    """Mean and standard deviation of images ``(N, H, W, 3)`` uint8, in [0, 1], rounded to four digits."""
    mean, std = ([round(value, 4) for value in values] for values in mean_and_std(pixel_counts(images)))
    std = [max(value, 0.0039) for value in std]  # at least 1/255: a channel may be constant
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def pixel_counts(images: Tensor) -> np.ndarray:
    """The histogram of each channel: ``(N, H, W, 3)`` uint8 -> ``(3, 256)``."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for part in images.split(1000):  # bincount takes 8 bytes per pixel
        for channel in range(3):
            counts[channel] += np.bincount(part[..., channel].numpy().ravel(), minlength=256)
    return counts


def mean_and_std(counts: np.ndarray) -> tuple[list[float], list[float]]:
    """The mean and standard deviation of each channel, of pixels in [0, 1], from their histogram ``(3, 256)``."""
    levels, shares = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = shares @ levels
    return mean.tolist(), np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(1)).tolist()
