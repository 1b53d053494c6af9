"""Select the transform backend."""

from typing import Literal

import torch

from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.batch_backend import BatchBackend, unsupported_steps
from customresnet.data.transforms.policy import Augmentation

EngineName = Literal["auto", "albumentations", "batch"]
TransformBackend = AlbumentationsBackend | BatchBackend

MEMORY_FOR_IMAGES = 0.25
"""Maximum fraction of a GPU's memory that ``auto`` uses for the images."""


def select_backend(
    engine: EngineName,
    augmentation: Augmentation,
    num_workers: int | Literal["auto"],
    image_bytes: int,
    device: torch.device,
) -> type[AlbumentationsBackend] | type[BatchBackend]:
    """Select the transform backend for an ``engine``, and decide ``auto``.

    ``image_bytes`` is the size of all images, and ``device`` the one used for training.
    """
    if engine == "auto":
        can_batch = (
            device.type == "cuda"
            and num_workers in (0, "auto")
            and not unsupported_steps(augmentation)
            and image_bytes < MEMORY_FOR_IMAGES * torch.cuda.mem_get_info(device)[1]
        )
        engine = "batch" if can_batch else "albumentations"
    return BatchBackend if engine == "batch" else AlbumentationsBackend
