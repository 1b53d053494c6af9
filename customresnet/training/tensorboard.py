"""What TensorBoard shows besides curves: the network's graph and augmented training images."""

import copy
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from customresnet.data.batches import InMemoryDataset, SeededBatchSampler
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.transforms.policy import denormalize
from customresnet.runtime.pictures import image_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = (4, 8)
"""Rows and columns of images."""


def show_start(writer: Any, model: Any, datamodule: CIFAR10DataModule) -> None:
    """Write the layout of the curves, a grid of training images and, if the model has a ``net``, its graph."""
    stage = "val" if datamodule.val_size else "test"
    writer.add_custom_scalars(
        {"curves": {name: ["Multiline", [f"train/{name}", f"{stage}/{name}"]] for name in ("loss", "acc")}}
    )
    writer.add_figure("training images, augmented", augmented_grid(datamodule))
    if (network := getattr(model, "net", None)) is not None:
        size = datamodule.preprocessing.image_size
        with suppress(RuntimeError):  # torch.jit cannot trace every network
            writer.add_graph(copy.deepcopy(network).cpu().float().eval(), torch.zeros(1, 3, size, size))


def augmented_grid(datamodule: CIFAR10DataModule) -> "Figure":
    """The first training images of epoch 1 after augmentation, with their labels."""
    data, (rows, columns) = datamodule.train_images, GRID
    sampler = SeededBatchSampler(len(data), min(rows * columns, len(data)), datamodule.seed, shuffle=True)
    images, labels = InMemoryDataset(data, datamodule.transforms(augment=True))[next(iter(sampler))]
    pixels = denormalize(images, datamodule.mean, datamodule.std)
    return image_grid(pixels.numpy(), [data.classes[label] for label in labels], columns, width=1.2 * columns)
