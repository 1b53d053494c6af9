"""Preprocessing: how images are prepared for a network."""

from dataclasses import dataclass
from typing import Any

from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.policy import NO_AUGMENTATION, Channels


@dataclass(frozen=True)
class Preprocessing:
    """What a checkpoint stores about its data, so that images are prepared as in training."""

    classes: tuple[str, ...]
    mean: Channels
    std: Channels
    image_size: int
    source: str

    @classmethod
    def from_checkpoint(cls, checkpoint: dict[str, Any]) -> "Preprocessing":
        """The preprocessing that a checkpoint was trained with."""
        saved = checkpoint["preprocessing"]
        lists = {name: tuple(saved[name]) for name in ("classes", "mean", "std")}
        return cls(**lists, image_size=saved["image_size"], source=saved["source"])

    def transforms(self) -> AlbumentationsBackend:
        """The transforms of test images."""
        return AlbumentationsBackend(NO_AUGMENTATION, self.mean, self.std, self.image_size)
