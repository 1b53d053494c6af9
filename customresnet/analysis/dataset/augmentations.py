"""What augmentation does to one training image: many outcomes, and one outcome step by step."""

import numpy as np

from customresnet.analysis.page import Section
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.policy import denormalize
from customresnet.runtime.errors import UserError
from customresnet.runtime.pictures import image_grid


def augmentations(data: CIFAR10DataModule, count: int = 19) -> Section:
    """Show one training image augmented many times, and each step of the policy.

    Args:
        data: Set up for fit; its seed chooses the image and the augmentations.
        count: How often to augment it.
    """
    if count < 1:
        raise UserError(f"--augmented must be at least 1; received {count}")
    size = data.train_images.images.shape[1]
    engine = AlbumentationsBackend(data.augment, data.mean, data.std, size)  # whose steps can be taken one by one
    index = int(np.random.default_rng(data.seed).integers(len(data.train_images)))
    image = data.train_images.images[index]
    name = data.train_images.classes[data.train_images.labels[index]]
    seen = denormalize(engine(image.expand(count, -1, -1, -1), data.seed), data.mean, data.std).numpy()
    grid = image_grid(np.concatenate([image[None].numpy(), seen]), ["original"] + [""] * count, columns=10)

    steps = augmentation_steps(engine, image.numpy(), _telling_seed(engine, image.numpy(), data.seed))
    captions = [f"{number}. {step}" if number else step for number, (step, _) in enumerate(steps)]
    step_by_step = image_grid(_on_one_size([_as_pixels(picture) for _, picture in steps]), captions, columns=len(steps))
    policy = str(engine).split(" -> ")
    return Section(
        "augmentation",
        "Augmentation",
        figures={
            f"A training image ({name}) and {count:,} augmented versions of it, as the network sees them but with "
            "normalisation undone; the hole shows the mean colour.": grid,
            "One version step by step. The normalised pixels, which are about 0 and partly negative, are shown "
            "stretched from their lowest, black, to their highest, white.": step_by_step,
        },
        numbers={"training_image": index, "policy": policy},
        text=[f"{number}. {step}" for number, step in enumerate(policy, start=1)],
    )


def augmentation_steps(engine: AlbumentationsBackend, image: np.ndarray, seed: int) -> list[tuple[str, np.ndarray]]:
    """One image after every step of the policy, as the engine augments the first image of a batch.

    Args:
        engine: The policy.
        image: ``(H, W, 3)`` uint8.
        seed: Seed of the batch.

    Returns:
        What was done and the image ``(H', W', 3)``: uint8, from normalisation on float32; the first is the original.
    """
    import albumentations as A

    policy = list(engine.steps())
    transforms = [step.build() for step in policy]
    outcomes = [("original", image)]
    for count, step in enumerate(policy, start=1):
        first_steps = A.Compose(transforms[:count])  # the seed decides them alike, whatever follows
        first_steps.set_random_seed(seed)
        after = first_steps(image=image)["image"]
        unchanged = np.array_equal(after, outcomes[-1][1])
        outcomes.append((f"not {step.done}" if unchanged else step.done, after))
    return outcomes


def _telling_seed(engine: AlbumentationsBackend, image: np.ndarray, first: int) -> int:
    """Of a few seeds the first that leaves no step out, or as few as possible, so that every step can be seen."""

    def left_out(seed: int) -> int:
        return sum(done.startswith("not ") for done, _ in augmentation_steps(engine, image, seed))

    best = first
    for seed in range(first, first + 50):
        if left_out(seed) < left_out(best):
            best = seed
        if not left_out(best):
            break
    return best


def _as_pixels(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    low, high = image.min(), image.max()
    return np.round((image - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)


def _on_one_size(images: list[np.ndarray]) -> np.ndarray:
    """Images of several sizes, each in the middle of a transparent square: ``(N, S, S, 4)``."""
    size = max(len(image) for image in images)
    squares = np.zeros((len(images), size, size, 4), dtype=np.uint8)
    for square, image in zip(squares, images, strict=True):
        place = slice((size - len(image)) // 2, (size + len(image)) // 2)
        square[place, place] = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    return squares
