"""Random images for the benchmark."""

from typing import Any

import torch

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.labelled_images import LabelledImages, Split
from customresnet.data.sources.cifar import CIFAR10_CLASSES


def random_images(count: int) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return LabelledImages(images, torch.randint(0, 10, (count,), generator=generator), CIFAR10_CLASSES)


class RandomImages(CIFAR10DataModule):
    """A data module of random images, with nothing to download."""

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(**options)
        self.count = count

    def prepare_data(self) -> None:
        pass

    def _load(self, split: Split) -> LabelledImages:
        return random_images(self.count if split == "train" else 512)
