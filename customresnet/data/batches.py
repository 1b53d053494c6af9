"""From images in memory to batches. Every random value depends only on (seed, epoch) and on the batch or the image."""

import math
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.batch_backend import BatchBackend
from customresnet.data.transforms.selection import TransformBackend
from customresnet.runtime.errors import UserError

Batch = tuple[Tensor, Tensor]
"""Images ``(N, 3, H, W)`` float32 and labels ``(N,)`` int64."""


@dataclass(frozen=True)
class BatchIndices:
    """The images of a batch, ``(N,)`` int64, and the seeds of their augmentation.

    A backend uses either the seed of the batch, or that of the epoch and the image indices.
    """

    indices: Tensor
    seed: int
    epoch_seed: int


class SeededBatchSampler(DistributedSampler[BatchIndices]):
    """The batches of one process in an epoch.

    Each iteration is a new epoch: the next one, or the one set by ``set_epoch``, which Lightning calls first. In a
    distributed run, Lightning replaces any sampler that is not a ``DistributedSampler``.

    Args:
        size: Number of images.
        batch_size: Images per batch of this process; the last batch may be smaller.
        seed: Seed of the order and of the batches' seeds.
        shuffle: Draw a new order each epoch. A few images may then repeat, so that all processes get the same number.
            Otherwise every image appears once, in order.
        rank: Index of this process.
        world_size: Number of processes.
    """

    def __init__(self, size: int, batch_size: int, seed: int, *, shuffle: bool, rank: int = 0, world_size: int = 1):
        super().__init__(range(size), world_size, rank, shuffle, seed)  # type: ignore[arg-type]
        self.size, self.batch_size = size, batch_size
        self.first_batch = 0  # where an iteration starts, for a run resumed within an epoch

    def __iter__(self) -> Iterator[BatchIndices]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        epoch_seed = derive_seed(self.seed, epoch)
        if self.shuffle:
            order = torch.randperm(self.size, generator=torch.Generator().manual_seed(epoch_seed))
            # processes with different numbers of steps would wait for each other's gradients forever
            order = torch.cat([order, order[: -self.size % self.num_replicas]])
        else:
            order = torch.arange(self.size)
        for number, indices in enumerate(order[self.rank :: self.num_replicas].split(self.batch_size)):
            if number >= self.first_batch:
                yield BatchIndices(indices, derive_seed(self.seed, epoch, self.rank, number), epoch_seed)

    def __len__(self) -> int:
        own = math.ceil((self.size - (0 if self.shuffle else self.rank)) / self.num_replicas)
        return math.ceil(own / self.batch_size)


class InMemoryDataset(Dataset[Batch]):
    """Images in memory, prepared batch by batch. Its length is the number of images."""

    def __init__(self, data: LabelledImages, backend: TransformBackend) -> None:
        self.data, self.backend = data, backend

    def __getitem__(self, batch: BatchIndices) -> Batch:
        images, indices = self.data.images, batch.indices.to(self.data.images.device, non_blocking=True)
        if isinstance(self.backend, BatchBackend):
            prepared = self.backend(images, indices, batch.epoch_seed)
        else:
            prepared = self.backend(images[indices], batch.seed)
        return prepared, self.data.labels[indices]

    def __len__(self) -> int:
        return len(self.data)


class TrainingLoader(DataLoader[Batch]):
    """A DataLoader that starts at the trainer's next batch, so that a run can resume within an epoch.

    ``trainer`` is None in a plain loop.
    """

    sampler: SeededBatchSampler
    trainer: pl.Trainer | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A generator's body runs at the first batch, after Lightning has restored its progress. Lightning does not call
        # load_state_dict on a loader created before that, for example to count its steps.
        self.sampler.first_batch = 0
        if self.trainer is not None and self.trainer.training:
            self.sampler.first_batch = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """Return nothing; with this method, Lightning considers the loader resumable."""
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Load nothing."""


def batch_size_per_process(batch_size: int, processes: int) -> int:
    """The share of one of several processes in a batch.

    Raises:
        UserError: The batch cannot be divided equally.
    """
    if batch_size % processes:
        fitting = [max(1, batch_size // processes) * processes, (batch_size // processes + 1) * processes]
        values = " or ".join(str(value) for value in dict.fromkeys(fitting))
        raise UserError(f"`batch_size` {batch_size} cannot be divided among {processes} processes; use {values}")
    return batch_size // processes


def loader_options(
    dataset: InMemoryDataset, sampler: SeededBatchSampler, num_workers: int | Literal["auto"], device: torch.device
) -> dict[str, Any]:
    """A DataLoader's options for whole batches.

    ``num_workers`` auto is 0 when training on a CPU, else one less than the number of cores, but at most 8.
    """
    if num_workers == "auto":
        num_workers = 0 if device.type == "cpu" else min(8, max(1, (os.cpu_count() or 1) - 1))
    options: dict[str, Any] = {"dataset": dataset, "batch_size": None, "sampler": sampler, "num_workers": num_workers}
    options["pin_memory"] = device.type == "cuda" and not dataset.data.images.is_cuda
    options["generator"] = torch.Generator()  # or the loader draws a base seed, unused here, from the global generator
    if num_workers:
        # fork is unsafe once torch has started threads; forkserver is spawn with a shorter start-up
        start_method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        options |= {"persistent_workers": True, "multiprocessing_context": start_method}
    return options


def check_batch_size(batch_size: int, images: int) -> None:
    """Raise a UserError if a batch is larger than the whole training set."""
    if batch_size > images:
        works = 2 ** int(math.log2(max(1, images / 8)))
        raise UserError(f"`batch_size` {batch_size} is larger than the {images} training images; {works} works")


def derive_seed(*numbers: int) -> int:
    """Derive a 32-bit seed from several integers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
