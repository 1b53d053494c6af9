"""Which images make up each batch; draws depend on (seed, epoch) and on the process and batch, or on the image."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.batch_backend import BatchBackend

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class BatchRequest:
    """One batch to make.

    Attributes:
        indices: Which images, ``(N,)`` int64.
        seed: Of this batch's augmentation, for an engine that draws image after image.
        epoch_seed: Of the epoch's, for an engine whose draws depend on the image, not on the batch it is in.
    """

    indices: Tensor
    seed: int
    epoch_seed: int


class SeededBatchSampler(Sampler[BatchRequest]):
    """The batches of an epoch, in order. Lightning calls ``set_epoch`` before each epoch."""

    def __init__(self, size: int, batch_size: int, seed: int, *, shuffle: bool, rank: int = 0, world_size: int = 1):
        self.size, self.batch_size, self.seed, self.shuffle = size, batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.first = 0  # where the next pass begins, for a run resumed within an epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[BatchRequest]:
        epoch_seed = derive_seed(self.seed, self.epoch)
        if self.shuffle:
            order = torch.randperm(self.size, generator=torch.Generator().manual_seed(epoch_seed))
            # Every process must take the same number of steps, or the gradient exchange hangs.
            order = torch.cat([order, order[: -self.size % self.world_size]])
        else:
            order = torch.arange(self.size)
        for number, indices in enumerate(order[self.rank :: self.world_size].split(self.batch_size)):
            if number >= self.first:
                yield BatchRequest(indices, derive_seed(self.seed, self.epoch, self.rank, number), epoch_seed)

    def __len__(self) -> int:
        mine = math.ceil((self.size - (0 if self.shuffle else self.rank)) / self.world_size)
        return math.ceil(mine / self.batch_size)


class TrainingLoader(DataLoader[Batch]):
    """A loader whose pass begins at the batch that the trainer is at: 0, or later in a run resumed within an epoch."""

    sampler: SeededBatchSampler
    trainer: pl.Trainer | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # As a generator this runs at the first batch, when Lightning has restored its progress. Its own way, the
        # loader's state_dict, comes too late for a loader that was asked for the number of its steps before.
        self.sampler.first = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """Nothing: it tells Lightning that this loader can be resumed."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to load."""


class InMemoryDataset(Dataset[Batch]):
    """Images in memory, indexed by whole batches."""

    def __init__(self, data: LabelledImages, engine: AlbumentationsBackend | BatchBackend) -> None:
        self.data, self.engine = data, engine

    def __getitem__(self, request: BatchRequest) -> Batch:
        images, indices = self.data.images, request.indices.to(self.data.images.device, non_blocking=True)
        if isinstance(self.engine, BatchBackend):
            prepared = self.engine(images, indices, request.epoch_seed)
        else:
            prepared = self.engine(images[indices], request.seed)
        return prepared, self.data.labels[indices]


def derive_seed(*numbers: int) -> int:
    """Mix several integers into one 32-bit seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
