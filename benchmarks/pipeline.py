"""The input pipelines, without a network."""

import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.data import RandomImages, random_images
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.policy import CIFAR10_MEAN, CIFAR10_STD
from customresnet.runtime.memory import keep_freed_memory


def pipeline(images: int, kind: str = "albumentations", workers: int = 0, batch_size: int = 512) -> dict[str, float]:
    """Training batches without a network.

    Args:
        images: Images in the training set.
        kind: A transform backend, ``albumentations`` or ``batch``; or ``torchvision``, its v2 transforms per image.
        workers: DataLoader workers; the process itself and each worker use one core.
        batch_size: Images per batch.
    """
    torch.set_num_threads(1)
    keep_freed_memory()  # as in fit
    loader: DataLoader[Any]
    if kind == "torchvision":
        loader = _torchvision(random_images(images), batch_size)
    else:
        module = RandomImages(images, batch_size=batch_size, engine=kind, num_workers=workers)
        module.setup("fit")
        loader = module.train_dataloader()
    seconds = []
    for _ in range(2):  # the first pass builds the transforms and starts workers
        start = time.perf_counter()
        count = sum(len(labels) for _, labels in loader)
        seconds.append(time.perf_counter() - start)
    return {"images_per_second": count / seconds[-1]}


def _torchvision(data: LabelledImages, batch_size: int) -> DataLoader[Any]:
    from torchvision.transforms import v2

    fill = [0.0, 0.0, 0.0]
    transform = v2.Compose(
        [
            v2.Pad(4, padding_mode="reflect"),
            v2.RandomCrop(32),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(CIFAR10_MEAN, CIFAR10_STD),
            v2.RandomErasing(p=1.0, scale=(1 / 16, 1 / 16), ratio=(1.0, 1.0), value=fill),
        ]
    )

    class Images(Dataset):
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return transform(data.images[index].permute(2, 0, 1)), data.labels[index]

    return DataLoader(Images(), batch_size=batch_size, shuffle=True)
