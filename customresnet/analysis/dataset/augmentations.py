"""Augmentation of one training image: many random versions, and one version step by step."""

import numpy as np

from customresnet.analysis.page import Section
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.policy import denormalize
from customresnet.runtime.pictures import image_grid


def augmentations(data: CIFAR10DataModule, count: int = 19) -> Section:
    """One training image with ``count`` random augmentations, and each step of the policy. The seed is the data's."""
    size = data.train_images.images.shape[1]
    backend = AlbumentationsBackend(data.augment, data.mean, data.std, size)  # steps can be applied separately
    index = int(np.random.default_rng(data.seed).integers(len(data.train_images)))
    image = data.train_images.images[index]
    name = data.train_images.classes[data.train_images.labels[index]]
    seen = denormalize(backend(image.expand(count, -1, -1, -1), data.seed), data.mean, data.std).numpy()
    grid = image_grid(np.concatenate([image[None].numpy(), seen]), ["original"] + [""] * count, columns=10)

    steps = augmentation_steps(backend, image.numpy(), _seed_with_all_steps(backend, image.numpy(), data.seed))
    captions = [f"{number}. {step}" if number else step for number, (step, _) in enumerate(steps)]
    step_by_step = image_grid(_to_one_size([_as_pixels(picture) for _, picture in steps]), captions, columns=len(steps))
    policy = str(backend).split(" -> ")
    return Section(
        "augmentation",
        "Augmentation",
        figures={
            f"A training image ({name}) and {count:,} augmented versions, as the network receives them, but not "
            "normalized. The cutout has the mean color.": grid,
            "One version step by step. Normalized pixels, some of which are negative, are rescaled from their minimum "
            "(black) to their maximum (white).": step_by_step,
        },
        numbers={"training_image": index, "policy": policy},
        text=[f"{number}. {step}" for number, step in enumerate(policy, start=1)],
    )


def augmentation_steps(backend: AlbumentationsBackend, image: np.ndarray, seed: int) -> list[tuple[str, np.ndarray]]:
    """One image ``(H, W, 3)`` uint8 after each step of the policy, as if it were the first of a batch with this seed.

    Returns:
        Each step's name and image ``(H', W', 3)``, starting with the original: uint8, float32 after normalization.
    """
    import albumentations as A

    policy = list(backend.steps())
    transforms = [step.build() for step in policy]
    outcomes = [("original", image)]
    for count, step in enumerate(policy, start=1):
        first_steps = A.Compose(transforms[:count])  # with the same seed, later steps do not affect them
        first_steps.set_random_seed(seed)
        after = first_steps(image=image)["image"]
        unchanged = np.array_equal(after, outcomes[-1][1])
        outcomes.append((f"not {step.done}" if unchanged else step.done, after))
    return outcomes


def _seed_with_all_steps(backend: AlbumentationsBackend, image: np.ndarray, first: int) -> int:
    """The first of 50 seeds with which every step changes the image, or else as many as possible."""
    skipped: dict[int, int] = {}
    for seed in range(first, first + 50):
        skipped[seed] = sum(done.startswith("not ") for done, _ in augmentation_steps(backend, image, seed))
        if not skipped[seed]:
            break
    return min(skipped, key=skipped.__getitem__)


def _as_pixels(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    low, high = image.min(), image.max()
    return np.round((image - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)


def _to_one_size(images: list[np.ndarray]) -> np.ndarray:
    """Images of several sizes, each centered in a transparent square: ``(N, S, S, 4)``."""
    size = max(len(image) for image in images)
    squares = np.zeros((len(images), size, size, 4), dtype=np.uint8)
    for square, image in zip(squares, images, strict=True):
        place = slice((size - len(image)) // 2, (size + len(image)) // 2)
        square[place, place] = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    return squares
