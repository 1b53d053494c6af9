"""CIFAR10DataModule: read a labelled image set and serve it in batches."""

import multiprocessing
import os
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from customresnet.data import sources
from customresnet.data.batches import Batch, InMemoryDataset, SeededBatchSampler, TrainingLoader
from customresnet.data.labelled_images import DEFAULT_IMAGE_SIZE, LabelledImages, Split
from customresnet.data.partition import Partition
from customresnet.data.sources import SourceName
from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.batch_backend import BatchBackend, unknown_steps
from customresnet.data.transforms.policy import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CIFAR100_CONSTANTS,
    NO_AUGMENTATION,
    Augmentation,
    Channels,
)
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runtime.errors import UserError

MEMORY_FOR_IMAGES = 0.25
"""Share of a GPU's memory that the images may take for ``auto`` to keep them there."""

EngineName = Literal["auto", "albumentations", "batch"]


class CIFAR10DataModule(pl.LightningDataModule):
    """CIFAR-10, or any labelled image set of its shape, augmented for training.

    Args:
        source: cifar10 and cifar100 download torchvision's archives; folder reads {train,test}/<class>/*.png from a
            directory or a .zip; digits are scikit-learn's, bundled. Default: the checkpoint's, else cifar10.
        root: Folder of the CIFAR archive (default: data), or the directory or .zip of source folder.
        batch_size: Images per optimizer step (per process).
        num_workers: Processes that augment; auto is 0 on a CPU, where they would take cores from the network.
        val_size: Training images held out for validation, equally many of each class; 0 evaluates on the test set.
        train_size: Train on so many images only, equally many of each class and chosen by the seed. Default: all.
        mean: Per-channel mean that is subtracted, of pixels in [0, 1]. Default: the checkpoint's, else CIFAR-10's
            (0.4914, 0.4822, 0.4465), or CIFAR-100's own.
        std: Per-channel standard deviation to divide by. Default: the checkpoint's, else CIFAR-10's
            (0.2470, 0.2435, 0.2616), or CIFAR-100's own.
        image_size: Resize all images to squares of this many pixels. Default: the checkpoint's, else images must be
            32x32.
        augment: What happens to training images.
        engine: What prepares the images: albumentations one by one, in worker processes if there are any; batch whole
            batches at once, on the GPU if there is one. auto is batch on a GPU that has room for all images, if it
            knows all steps of augment and no workers are asked for.
        seed: Seed of order, augmentation and split. Default: that of --seed_everything.
    """

    def __init__(
        self,
        source: SourceName | None = None,
        root: Path | None = None,
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
        self.root = root
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.val_size = val_size
        self.train_size = train_size
        constants = CIFAR100_CONSTANTS if self.source == "cifar100" else (CIFAR10_MEAN, CIFAR10_STD)
        self.mean, self.std = mean or constants[0], std or constants[1]
        self.image_size = image_size
        self.augment = augment
        self.engine = engine
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self._check_options()
        self._train: LabelledImages | None = None
        self._val: LabelledImages | None = None
        self._test: LabelledImages | None = None
        self._moved: dict[tuple[int, torch.device], LabelledImages] = {}

    def _check_options(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"--data.batch_size must be at least 1; received {self.batch_size}")
        if self.seed < 0:
            raise UserError(f"--data.seed must be 0 or more; received {self.seed}")
        if self.val_size < 0:
            raise UserError(f"--data.val_size must be 0 or more; received {self.val_size}")
        if self.num_workers != "auto" and self.num_workers < 0:
            raise UserError(f"--data.num_workers must be 0 or more, or auto; received {self.num_workers}")
        if min(self.std) <= 0:
            raise UserError(f"--data.std must be positive; received {list(self.std)}")
        size = self.image_size or DEFAULT_IMAGE_SIZE
        if size < 32:
            raise UserError(f"--data.image_size must be at least 32, for the network's poolings; received {size}")
        self.augment.check(size)
        if self.engine == "batch":
            BatchBackend(self.augment, self.mean, self.std, size)  # refuses what it does not know
            if self.num_workers not in (0, "auto"):
                raise UserError(f"--data.engine batch needs no workers; received --data.num_workers {self.num_workers}")

    # ------------------------------------------------------------------------------------------------------- reading

    def prepare_data(self) -> None:
        """Download the source's archive if it has one and it is not in ``root`` yet."""
        sources.download(self.source, self.root)

    def setup(self, stage: str | None = None) -> None:
        """Read the images that a stage needs, or all of them. Images that were read before are kept."""
        needs_training_images = stage in (None, "fit") or (stage == "validate" and self.val_size > 0)
        if self._train is None and needs_training_images:
            self._train, self._val = self._partition.of(self._load("train"))
            self._check_batch_size(len(self._train))
        if self._test is None:
            self._test = self._load("test")

    def _load(self, split: Split) -> LabelledImages:
        return sources.load(self.source, self.root, split, self.image_size)

    @property
    def _partition(self) -> Partition:
        return Partition(self.val_size, self.train_size, self.seed)

    def count_training_images(self) -> int:
        """How many images an epoch trains on, without reading one."""
        images = sources.count(self.source, self.root, "train")
        images = self._partition.count(images, len(sources.class_names(self.source, self.root)))
        self._check_batch_size(images)
        return images

    def _check_batch_size(self, images: int) -> None:
        if self.batch_size > images:
            raise UserError(f"--data.batch_size {self.batch_size} is larger than the {images} training images")

    @property
    def train_images(self) -> LabelledImages:
        """The training images before augmentation."""
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
        """What a checkpoint must carry; after ``setup``."""
        images = self.test_images
        return Preprocessing(images.classes, self.mean, self.std, images.images.shape[1], self.source)

    # ------------------------------------------------------------------------------------------------------- serving

    def transforms(self, *, augment: bool) -> AlbumentationsBackend | BatchBackend:
        """What prepares training images, or test images."""
        kind = BatchBackend if self._by_batch() else AlbumentationsBackend
        size = self.image_size or DEFAULT_IMAGE_SIZE
        return kind(self.augment if augment else NO_AUGMENTATION, self.mean, self.std, size)

    def _by_batch(self) -> bool:
        if self.engine != "auto":
            return self.engine == "batch"
        possible = self.num_workers in (0, "auto") and not unknown_steps(self.augment)
        return possible and self._device().type == "cuda" and self._fit_on(self._device())

    def _fit_on(self, device: torch.device) -> bool:
        """Whether a GPU has room for all images beside what training needs."""
        images = sum(part.images.nbytes for part in (self._train, self._val, self._test) if part)
        return images < MEMORY_FOR_IMAGES * torch.cuda.mem_get_info(device)[1]

    def _placed(self, data: LabelledImages) -> LabelledImages:
        """The images where the batch engine wants them, moved once."""
        device = self._device()
        if data.images.device == device:
            return data
        key = id(data), device
        if key not in self._moved:
            self._moved[key] = data.to(device)
        return self._moved[key]

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _loader_options(self, data: LabelledImages, *, training: bool) -> dict[str, Any]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        workers = self._workers()
        if self._by_batch():
            data = self._placed(data)
        return {
            # a worker process maps the images' pages: torch moves a tensor it is sent to shared memory
            "dataset": InMemoryDataset(data, self.transforms(augment=training)),
            "batch_size": None,  # a request is a whole batch already
            "sampler": SeededBatchSampler(
                len(data), self.batch_size, self.seed, shuffle=training, rank=rank, world_size=world_size
            ),
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": self._device().type == "cuda" and not data.images.is_cuda,
            "multiprocessing_context": _process_start_method() if workers else None,
            "generator": torch.Generator(),  # the loader draws a base seed it never needs: not from the global state
        }

    def _workers(self) -> int:
        if self._by_batch():
            return 0
        if self.num_workers != "auto":
            return self.num_workers
        return 0 if self._device().type == "cpu" else min(8, max(1, (os.cpu_count() or 1) - 1))

    def train_dataloader(self) -> TrainingLoader:
        loader = TrainingLoader(**self._loader_options(self.train_images, training=True))
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> DataLoader[Batch]:
        """The held-out images if there are any, else the test images."""
        return DataLoader(**self._loader_options(self._val or self.test_images, training=False))

    def test_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(**self._loader_options(self.test_images, training=False))


def _process_start_method() -> str:
    # fork is unsafe once torch's threads run; forkserver is spawn with a shorter start-up.
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
