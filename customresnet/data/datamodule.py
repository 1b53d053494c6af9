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
from customresnet.data.batches import Batch, InMemoryDataset, SeededBatchSampler, TrainingLoader, worker_options
from customresnet.data.labelled_images import DEFAULT_IMAGE_SIZE, LabelledImages, Partition, Split
from customresnet.data.sources import SourceName
from customresnet.data.transforms.batch_backend import BatchBackend
from customresnet.data.transforms.policy import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CIFAR100_CONSTANTS,
    NO_AUGMENTATION,
    Augmentation,
    Channels,
)
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.data.transforms.selection import EngineName, TransformBackend, select_backend
from customresnet.runtime.errors import UserError


class CIFAR10DataModule(pl.LightningDataModule):
    """CIFAR-10 or another labeled image set, with augmentation for training.

    Args:
        source: cifar10 and cifar100 download torchvision's archives; folder reads {train,test}/<class>/*.png from a
            directory or a .zip; digits are scikit-learn's. Default: the checkpoint's, else cifar10.
        root: Folder of the CIFAR archive (default: data), or the directory or .zip that source folder reads.
        batch_size: Images per optimizer step and process.
        num_workers: Worker processes that load data. auto is 0 on a CPU, where workers would compete with training.
        val_size: Training images held out for validation, stratified by class. 0 evaluates on the test set.
        train_size: Training images to use, stratified by class and chosen by the seed. Default: all.
        mean: Per-channel mean to subtract, of pixels in [0, 1]. Default: the checkpoint's, else CIFAR-10's
            (0.4914, 0.4822, 0.4465), or CIFAR-100's own.
        std: Per-channel standard deviation to divide by, of pixels in [0, 1]. Default: the checkpoint's, else
            CIFAR-10's (0.2470, 0.2435, 0.2616), or CIFAR-100's own.
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
        mean: Channels | None = None,
        std: Channels | None = None,
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
        self.val_size = val_size
        self.train_size = train_size
        constants = CIFAR100_CONSTANTS if self.source == "cifar100" else (CIFAR10_MEAN, CIFAR10_STD)
        self.mean, self.std = mean or constants[0], std or constants[1]
        self.image_size = image_size
        self.augment = Augmentation.from_config(augment) if isinstance(augment, dict) else augment  # as in hparams
        self.engine = engine
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self._check_options()
        self.save_hyperparameters(self._plain_options(), logger=False)
        self._train: LabelledImages | None = None
        self._val: LabelledImages | None = None
        self._test: LabelledImages | None = None
        self._copies: dict[tuple[LabelledImages, torch.device], LabelledImages] = {}

    def _check_options(self) -> None:
        """Raise a UserError if an option is invalid for any set of images."""
        for name, least in (("batch_size", 1), ("seed", 0), ("val_size", 0)):
            if getattr(self, name) < least:
                raise UserError(f"`{name}` must be at least {least}; received {getattr(self, name)}")
        if self.num_workers != "auto" and self.num_workers < 0:
            raise UserError(f"`num_workers` must be at least 0, or auto; received {self.num_workers}")
        if min(self.std) <= 0:
            raise UserError(f"`std` must be positive; received {list(self.std)}")
        size = self.image_size or DEFAULT_IMAGE_SIZE
        if size < 32:
            raise UserError(f"`image_size` must be at least 32, for the network's pooling layers; received {size}")
        self.augment.check(size)
        if self.engine == "batch":
            BatchBackend(self.augment, self.mean, self.std, size)  # raises a UserError for an unsupported step
            if self.num_workers not in (0, "auto"):
                raise UserError(f"`engine` batch does not use workers; received `num_workers` {self.num_workers}")

    def _plain_options(self) -> dict[str, Any]:
        """The options as values that any checkpoint can hold."""
        names = ("batch_size", "num_workers", "val_size", "train_size", "mean", "std", "image_size", "engine", "seed")
        root = None if self.root is None else str(self.root)
        options = {name: getattr(self, name) for name in names}
        return {"source": self.source, "root": root, **options, "augment": asdict(self.augment)}

    def prepare_data(self) -> None:
        """Download the source's archive if it has one that is not in ``root`` yet."""
        sources.download(self.source, self.root)

    def setup(self, stage: str | None = None) -> None:
        """Read the images that a stage needs (None: all images) unless they have been read."""
        needs_training_images = stage in (None, "fit") or (stage == "validate" and self.val_size > 0)
        if self._train is None and needs_training_images:
            self._train, self._val = self._partition.split(self._load("train"))
            self._check_batch_size(len(self._train))
        if self._test is None:
            self._test = self._load("test")

    def train_dataloader(self) -> TrainingLoader:
        """The augmented training images, in a new order each epoch."""
        loader = TrainingLoader(**self._loader_options(self.train_images, augment=True))
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> DataLoader[Batch]:
        """The held-out images, or the test images if none are held out."""
        return DataLoader(**self._loader_options(self._val or self.test_images))

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test images, in order."""
        return DataLoader(**self._loader_options(self.test_images))

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """The test images without their labels, in order."""
        return DataLoader(**self._loader_options(self.test_images), collate_fn=operator.itemgetter(0))

    @property
    def train_images(self) -> LabelledImages:
        """The training images before augmentation, without the held-out images."""
        if self._train is None:
            raise UserError('the training images have not been read; call setup("fit") first')
        return self._train

    @property
    def test_images(self) -> LabelledImages:
        """The test images."""
        if self._test is None:
            raise UserError("the test images have not been read; call setup() first")
        return self._test

    @property
    def preprocessing(self) -> Preprocessing:
        """How the images are prepared; stored in checkpoints."""
        images = self.test_images
        return Preprocessing(images.classes, self.mean, self.std, images.images.shape[1], self.source)

    def count_training_images(self) -> int:
        """The number of images in an epoch, counted without reading them."""
        images = sources.count(self.source, self.root, "train")
        images = self._partition.count(images, len(sources.class_names(self.source, self.root)))
        self._check_batch_size(images)
        return images

    def _check_batch_size(self, images: int) -> None:
        """Raise a UserError if a batch is larger than the whole training set of ``images`` images."""
        if self.batch_size > images:
            raise UserError(f"`batch_size` {self.batch_size} is larger than the {images} training images")

    @property
    def _partition(self) -> Partition:
        return Partition(self.val_size, self.train_size, self.seed)

    def _load(self, split: Split) -> LabelledImages:
        return sources.load(self.source, self.root, split, self.image_size)

    def transforms(self, *, augment: bool, device: torch.device | None = None) -> TransformBackend:
        """Create the transform backend: with augmentation for training images, without for test images.

        ``engine`` auto depends on the device used for training. Default: the trainer's, else the CPU.
        """
        images = (self._train, self._val, self._test)
        image_bytes = sum(part.images.nbytes for part in images if part)
        backend = select_backend(self.engine, self.augment, self.num_workers, image_bytes, device or self._device)
        policy = self.augment if augment else NO_AUGMENTATION
        return backend(policy, self.mean, self.std, self.image_size or DEFAULT_IMAGE_SIZE)

    def _loader_options(self, data: LabelledImages, *, augment: bool = False) -> dict[str, Any]:
        backend, device, num_workers = self.transforms(augment=augment), self._device, self.num_workers
        if isinstance(backend, BatchBackend):
            data, num_workers = self._copy_to(device, data), 0
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return {
            "dataset": InMemoryDataset(data, backend),
            "batch_size": None,  # the sampler yields whole batches
            "sampler": SeededBatchSampler(
                len(data), self.batch_size, self.seed, shuffle=augment, rank=rank, world_size=world_size
            ),
            "pin_memory": device.type == "cuda" and not data.images.is_cuda,
            "generator": torch.Generator(),  # or the loader draws a base seed, unused here, from the global generator
            **worker_options(num_workers, device),
        }

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
