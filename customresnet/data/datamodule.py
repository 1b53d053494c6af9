"""CIFAR10DataModule: a labeled image set, read into memory and loaded in batches."""

import operator
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from customresnet.data import sources
from customresnet.data.batches import (
    Batch,
    InMemoryDataset,
    SeededBatchSampler,
    TrainingLoader,
    batch_size_per_process,
    check_batch_size,
    loader_options,
)
from customresnet.data.labelled_images import DEFAULT_IMAGE_SIZE, MAX_IMAGE_SIZE, LabelledImages, Split
from customresnet.data.sources import SourceName
from customresnet.data.splits import Splits
from customresnet.data.transforms.batch_backend import BatchBackend, refuse_unsupported
from customresnet.data.transforms.normalization import GivenConstants, Normalization
from customresnet.data.transforms.policy import NO_AUGMENTATION, Augmentation, Channels
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.data.transforms.selection import EngineName, TransformBackend, select_backend
from customresnet.runtime.errors import UserError

MAX_WORKERS = 512


class CIFAR10DataModule(pl.LightningDataModule):
    """CIFAR-10 or another labeled image set, with augmentation for training.

    Args:
        source: cifar10 and cifar100 download torchvision's archives; folder reads the images of a directory or .zip,
            which has a folder for each class, in train/ and test/ (docs/own-network.md); digits are scikit-learn's.
            Default: the checkpoint's, else cifar10.
        root: Folder of the CIFAR archive (default: data), or the directory or .zip that source folder reads.
        batch_size: Images per optimizer step, of all processes together.
        num_workers: Worker processes that load data. auto is 0 on a CPU, where workers would compete with training.
        val_size: Training images held out for validation, stratified by class. 0 evaluates on the test set, unless a
            folder has validation images of its own besides its test images: those are held out.
        train_size: Training images to use, stratified by class and chosen by the seed. Default: all.
        test_share: For source folder without test images, the fraction of each class's images to test on. They are
            chosen at random, but are the same for every seed. Default: there must be test images.
        mean: Per-channel mean to subtract, of pixels in [0, 1]. auto computes it from the training images. Default: the
            checkpoint's, else auto for source folder, CIFAR-100's own for cifar100, and CIFAR-10's (0.4914, 0.4822,
            0.4465) for the others.
        std: Per-channel standard deviation to divide by, of pixels in [0, 1], with the same values of auto and the
            default; CIFAR-10's is (0.2470, 0.2435, 0.2616).
        image_size: Side in pixels to resize all images to. Default: the checkpoint's, else images must be 32x32.
        augment: Augmentation of the training images.
        engine: Transform backend. albumentations prepares images one by one, in the worker processes if there are
            any; batch prepares whole batches, on the GPU if there is one. auto is batch on a GPU that has memory for
            all images, unless num_workers is positive or batch does not support a step of augment.
        seed: Seed of the order, the augmentation and the split. Default: the seed of seed_everything.
    """

    def __init__(
        self,
        source: SourceName | None = None,
        root: Path | str | None = None,
        batch_size: int = 512,
        num_workers: int | Literal["auto"] = "auto",
        val_size: int = 0,
        train_size: int | None = None,
        test_share: float | None = None,
        mean: GivenConstants | None = None,
        std: GivenConstants | None = None,
        image_size: int | None = None,
        augment: Augmentation = Augmentation(),
        engine: EngineName = "auto",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.source: SourceName = source or "cifar10"
        self.root = None if root is None else Path(root)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.train_size = train_size
        self.test_share = test_share
        self._normalization = Normalization(self.source, mean, std)
        self.image_size = image_size
        augment = Augmentation.from_config(augment) if isinstance(augment, dict) else augment  # as in hparams
        self.augment = augment.scaled(image_size or DEFAULT_IMAGE_SIZE)
        self.engine = engine
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self._splits = Splits(self._find, self._load, val_size, train_size, self.seed)
        self._copies: dict[tuple[LabelledImages, torch.device], LabelledImages] = {}
        self._check_options()
        self.save_hyperparameters(self._plain_options(), logger=False)

    def _check_options(self) -> None:
        """Raise a UserError if an option is invalid for any set of images."""
        for name, least in (("batch_size", 1), ("seed", 0), ("val_size", 0)):
            if getattr(self, name) < least:
                raise UserError(f"`{name}` must be at least {least}; received {getattr(self, name)}")
        if self.num_workers != "auto" and self.num_workers < 0:
            raise UserError(f"`num_workers` must be at least 0, or auto; received {self.num_workers}")
        if self.num_workers != "auto" and self.num_workers > MAX_WORKERS:
            raise UserError(f"`num_workers` must be at most {MAX_WORKERS}; received {self.num_workers}")
        if self.test_share is not None and not 0 < self.test_share < 1:
            raise UserError(f"`test_share` must be above 0 and below 1; received {self.test_share:g}")
        size = self.image_size or DEFAULT_IMAGE_SIZE
        if size < 32:
            raise UserError(f"`image_size` must be at least 32, for the network's pooling layers; received {size}")
        if size > MAX_IMAGE_SIZE:
            raise UserError(f"`image_size` must be at most {MAX_IMAGE_SIZE}; received {size}")
        self.augment.check(size)
        if self.engine == "batch":
            refuse_unsupported(self.augment)
            if self.num_workers not in (0, "auto"):
                raise UserError(f"`engine` batch does not use workers; received `num_workers` {self.num_workers}")

    def _plain_options(self) -> dict[str, Any]:
        """The options as values that any checkpoint can hold."""
        names = ("batch_size", "num_workers", "val_size", "train_size", "test_share", "image_size", "engine", "seed")
        options = {name: getattr(self, name) for name in names}
        options |= {"source": self.source, "root": None if self.root is None else str(self.root)}
        mean, std = self._normalization.given
        return {**options, "mean": mean, "std": std, "augment": asdict(self.augment)}

    def prepare_data(self) -> None:
        """Download the source's archive if it has one that is not in ``root`` yet."""
        sources.download(self.source, self.root)

    def setup(self, stage: str | None = None) -> None:
        """Read the images that a stage needs (None: all images) unless they have been read."""
        self.read_images(stage)
        if stage in (None, "fit"):
            self._normalization.checkpoint = None  # of an earlier evaluation
            check_batch_size(self.batch_size, len(self.train_images))

    def read_images(self, stage: str | None = None) -> None:
        """The same for any batch size."""
        self._splits.read(stage)

    @property
    def val_size(self) -> int:
        """Images held out for validation. A source's own ones are counted once they have been found."""
        return self._splits.val_size

    def train_dataloader(self) -> TrainingLoader:
        """The augmented training images, in a new order each epoch."""
        loader = TrainingLoader(**self._loader_options(self.train_images, augment=True))
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> DataLoader[Batch]:
        """The held-out images, or the test images if none are held out."""
        return DataLoader(**self._loader_options(self._splits.val or self.test_images))

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test images, in order."""
        return DataLoader(**self._loader_options(self.test_images))

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """The test images without their labels, in order."""
        return DataLoader(**self._loader_options(self.test_images), collate_fn=operator.itemgetter(0))

    @property
    def train_images(self) -> LabelledImages:
        """The training images before augmentation, without the held-out images."""
        if self._splits.train is None:
            raise UserError('the training images have not been read; call setup("fit") first')
        return self._splits.train

    @property
    def test_images(self) -> LabelledImages:
        """The test images."""
        if self._splits.test is None:
            raise UserError("the test images have not been read; call setup() first")
        return self._splits.test

    @property
    def mean(self) -> Channels:
        """Per-channel mean: given, the checkpoint's, or that of the training images, which are read if necessary."""
        return self._normalization.constants(self._splits.training_images)[0]

    @property
    def std(self) -> Channels:
        """Per-channel standard deviation; see ``mean``."""
        return self._normalization.constants(self._splits.training_images)[1]

    def adopt(self, checkpoint: Preprocessing) -> None:
        """Use a checkpoint's order of the classes and, until the next fit, its mean and std unless they were given."""
        self._normalization.checkpoint = checkpoint
        self._splits.order_classes(checkpoint.classes)

    @property
    def notes(self) -> list[str]:
        """What is worth knowing about the images that have been read, in words."""
        return [*self._splits.notes, *self._normalization.note()]

    @property
    def preprocessing(self) -> Preprocessing:
        """How the images are prepared; stored in checkpoints."""
        images = self.test_images
        return Preprocessing(images.classes, self.mean, self.std, images.images.shape[1], self.source)

    def count_training_images(self) -> int:
        """The number of images in an epoch, counted without reading them."""
        images = self._splits.count_training_images()
        check_batch_size(self.batch_size, images)
        return images

    def _find(self) -> sources.ImageSet:
        return sources.find(self.source, self.root, self.test_share)

    def _load(self, split: Split) -> LabelledImages:
        return sources.load(self.source, self.root, split, self.image_size, self.test_share)

    def transforms(self, *, augment: bool, device: torch.device | None = None) -> TransformBackend:
        """Create the transform backend: with augmentation for training images, without for test images.

        ``engine`` auto depends on the device used for training. Default: the trainer's, else the CPU.
        """
        images = (self._splits.train, self._splits.val, self._splits.test)
        image_bytes = sum(part.images.nbytes for part in images if part)
        backend = select_backend(self.engine, self.augment, self.num_workers, image_bytes, device or self._device)
        policy = self.augment if augment else NO_AUGMENTATION
        return backend(policy, self.mean, self.std, self.image_size or DEFAULT_IMAGE_SIZE)

    def _loader_options(self, data: LabelledImages, *, augment: bool = False) -> dict[str, Any]:
        backend, device, num_workers = self.transforms(augment=augment), self._device, self.num_workers
        if isinstance(backend, BatchBackend):
            data, num_workers = self._copy_to(device, data), 0
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        own = batch_size_per_process(self.batch_size, world_size)
        sampler = SeededBatchSampler(len(data), own, self.seed, shuffle=augment, rank=rank, world_size=world_size)
        return loader_options(InMemoryDataset(data, backend), sampler, num_workers, device)

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _copy_to(self, device: torch.device, data: LabelledImages) -> LabelledImages:
        """The images on a device, copied once."""
        if data.images.device == device:
            return data
        key = data, device
        if key not in self._copies:
            self._copies[key] = data.to(device)
        return self._copies[key]
