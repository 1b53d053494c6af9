"""Preprocessing: how images come to a network, which its checkpoint must carry."""

from dataclasses import dataclass
from typing import Any

from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.policy import NO_AUGMENTATION, Channels


@dataclass(frozen=True)
class Preprocessing:
    """What must be equal between training and any later use of the network."""

    classes: tuple[str, ...]
    mean: Channels
    std: Channels
    image_size: int
    source: str

    @classmethod
    def from_checkpoint(cls, checkpoint: dict[str, Any]) -> "Preprocessing":
        """What a checkpoint was trained with."""
        saved = checkpoint["preprocessing"]
        lists = {name: tuple(saved[name]) for name in ("classes", "mean", "std")}
        return cls(**lists, image_size=saved["image_size"], source=saved["source"])

    def engine(self) -> AlbumentationsBackend:
        """The transforms of test images."""
        return AlbumentationsBackend(NO_AUGMENTATION, self.mean, self.std, self.image_size)
