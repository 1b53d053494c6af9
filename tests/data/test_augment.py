"""The policy against its own words: what is cropped, flipped and cut, and with which constants."""

import numpy as np
import pytest
import torch

from customresnet.data.augment import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    NO_AUGMENTATION,
    AlbumentationsEngine,
    Augmentation,
    denormalize,
)


def engine(augmentation: Augmentation) -> AlbumentationsEngine:
    return AlbumentationsEngine(augmentation, CIFAR10_MEAN, CIFAR10_STD, 32)


def normalized(image: np.ndarray) -> np.ndarray:
    return (image / 255.0 - np.array(CIFAR10_MEAN)) / np.array(CIFAR10_STD)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_test_images_are_only_normalised_and_never_random(images):
    first, second = engine(NO_AUGMENTATION)(images, seed=1), engine(NO_AUGMENTATION)(images, seed=2)
    assert torch.equal(first, second)
    expected = torch.tensor(normalized(images.numpy())).permute(0, 3, 1, 2)
    torch.testing.assert_close(first.double(), expected, rtol=0, atol=1e-5)
    assert first.is_contiguous(memory_format=torch.channels_last)


def test_a_crop_is_one_of_the_81_windows_of_the_image_mirrored_4_pixels_wide(images):
    out = engine(Augmentation(pad=4, flip=0, cutout=0))(images, seed=3)
    seen = set()
    for image, result in zip(images.numpy(), out, strict=True):
        padded = normalized(np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect"))  # numpy's name for reflect_101
        windows = {(y, x): padded[y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
        found = [at for at, w in windows.items() if np.allclose(w, result.permute(1, 2, 0).numpy(), atol=1e-4)]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 30  # 64 draws out of 81


def test_half_of_the_images_are_flipped(images):
    out = engine(Augmentation(pad=0, flip=0.5, cutout=0))(images, seed=4)
    plain = engine(NO_AUGMENTATION)(images, seed=0)
    flipped = [torch.equal(o, p.flip(2)) for o, p in zip(out, plain, strict=True)]
    same = [torch.equal(o, p) for o, p in zip(out, plain, strict=True)]
    assert all(f != s for f, s in zip(flipped, same, strict=True))
    assert 20 <= sum(flipped) <= 44  # 64 fair coins: within three standard deviations


def test_each_image_loses_one_whole_8x8_square_to_the_mean(images):
    out = engine(Augmentation(pad=0, flip=0, cutout=8))(images, seed=5)
    plain = engine(NO_AUGMENTATION)(images, seed=0)
    corners = set()
    for o, p in zip(out, plain, strict=True):
        changed = (o != p).any(dim=0)
        hole = (o == 0).all(dim=0)
        assert int(hole.sum()) == 64
        assert bool((changed <= hole).all())
        rows, columns = torch.where(hole)
        assert (int(rows.max() - rows.min()), int(columns.max() - columns.min())) == (7, 7)
        corners.add((int(rows.min()), int(columns.min())))
    assert len(corners) > 50


def test_zero_in_a_hole_is_the_mean_colour_exactly(images):
    out = engine(Augmentation(pad=0, flip=0, cutout=32))(images[:1], seed=0)
    assert denormalize(out, CIFAR10_MEAN, CIFAR10_STD)[0, 0, 0].tolist() == [round(255 * m) for m in CIFAR10_MEAN]


def test_denormalize_gives_the_pixels_back(images):
    assert torch.equal(denormalize(engine(NO_AUGMENTATION)(images, 0), CIFAR10_MEAN, CIFAR10_STD), images)


def test_equal_seeds_give_equal_pixels_and_others_others(images):
    policy = Augmentation()
    first, again, other = engine(policy)(images, 7), engine(policy)(images, 7), engine(policy)(images, 8)
    assert torch.equal(first, again)
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_policy_prints_readably():
    assert str(engine(Augmentation())) == (
        "Pad 4 (to 40x40, reflect_101) -> RandomCrop 32 -> HorizontalFlip p=0.5 -> "
        "Normalize mean=(0.4914, 0.4822, 0.4465) std=(0.247, 0.2435, 0.2616) -> Cutout 8x8 (filled with the mean)"
    )
    assert str(engine(NO_AUGMENTATION)).startswith("Normalize")
