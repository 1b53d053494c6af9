"""Check the options of a CIFAR10DataModule."""

from typing import TYPE_CHECKING

from customresnet.data.labelled_images import DEFAULT_IMAGE_SIZE
from customresnet.data.transforms.batch_backend import BatchBackend
from customresnet.runtime.errors import UserError

if TYPE_CHECKING:
    from customresnet.data.datamodule import CIFAR10DataModule


def check_options(data: "CIFAR10DataModule") -> None:
    """Raise a UserError if an option is invalid for any set of images."""
    if data.batch_size < 1:
        raise UserError(f"`batch_size` must be at least 1; received {data.batch_size}")
    if data.seed < 0:
        raise UserError(f"`seed` must be at least 0; received {data.seed}")
    if data.val_size < 0:
        raise UserError(f"`val_size` must be at least 0; received {data.val_size}")
    if data.num_workers != "auto" and data.num_workers < 0:
        raise UserError(f"`num_workers` must be at least 0, or auto; received {data.num_workers}")
    if min(data.std) <= 0:
        raise UserError(f"`std` must be positive; received {list(data.std)}")
    size = data.image_size or DEFAULT_IMAGE_SIZE
    if size < 32:
        raise UserError(f"`image_size` must be at least 32, for the network's pooling layers; received {size}")
    data.augment.check(size)
    if data.engine == "batch":
        BatchBackend(data.augment, data.mean, data.std, size)  # raises a UserError for an unsupported step
        if data.num_workers not in (0, "auto"):
            raise UserError(f"`engine` batch does not use workers; received `num_workers` {data.num_workers}")


def check_batch_size(batch_size: int, images: int) -> None:
    """Raise a UserError if a batch is larger than the whole training set."""
    if batch_size > images:
        raise UserError(f"`batch_size` {batch_size} is larger than the {images} training images")
