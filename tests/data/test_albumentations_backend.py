"""Each step of the policy, as Albumentations applies it, against an independent computation."""

import numpy as np
import pytest
import torch

from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.policy import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    NO_AUGMENTATION,
    Augmentation,
    ColorJitter,
    ShiftScaleRotate,
    denormalize,
)


def backend(augmentation: Augmentation) -> AlbumentationsBackend:
    return AlbumentationsBackend(augmentation, CIFAR10_MEAN, CIFAR10_STD, 32)


def normalized(image: np.ndarray) -> np.ndarray:
    return (image / 255.0 - np.array(CIFAR10_MEAN)) / np.array(CIFAR10_STD)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_test_images_are_normalized_without_randomness(images):
    first, second = backend(NO_AUGMENTATION)(images, seed=1), backend(NO_AUGMENTATION)(images, seed=2)
    assert torch.equal(first, second)
    expected = torch.tensor(normalized(images.numpy())).permute(0, 3, 1, 2)
    torch.testing.assert_close(first.double(), expected, rtol=0, atol=1e-5)
    assert first.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("border", "mode"), [("reflect_101", "reflect"), ("replicate", "edge")])  # numpy's names
def test_crops_are_windows_of_the_image_padded_by_4_pixels(images, border, mode):
    out = backend(Augmentation(pad=4, flip=0, cutout=0, border=border))(images, seed=3)
    seen = set()
    for image, result in zip(images.numpy(), out, strict=True):
        padded = normalized(np.pad(image, ((4, 4), (4, 4), (0, 0)), mode=mode))
        windows = {(y, x): padded[y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
        found = [at for at, w in windows.items() if np.allclose(w, result.permute(1, 2, 0).numpy(), atol=1e-4)]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 30  # of 81 windows, in 64 draws


def test_half_of_the_images_are_flipped(images):
    out = backend(Augmentation(pad=0, flip=0.5, cutout=0))(images, seed=4)
    plain = backend(NO_AUGMENTATION)(images, seed=0)
    flipped = [torch.equal(o, p.flip(2)) for o, p in zip(out, plain, strict=True)]
    same = [torch.equal(o, p) for o, p in zip(out, plain, strict=True)]
    assert all(f != s for f, s in zip(flipped, same, strict=True))
    assert 20 <= sum(flipped) <= 44  # 64 fair coins: within three standard deviations


def test_cutout_fills_one_8x8_square_inside_each_image(images):
    out = backend(Augmentation(pad=0, flip=0, cutout=8))(images, seed=5)
    plain = backend(NO_AUGMENTATION)(images, seed=0)
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


def test_a_hole_shows_the_mean_color(images):
    out = backend(Augmentation(pad=0, flip=0, cutout=32))(images[:1], seed=0)
    assert denormalize(out, CIFAR10_MEAN, CIFAR10_STD)[0, 0, 0].tolist() == [round(255 * m) for m in CIFAR10_MEAN]


def test_cutout_p_is_the_probability_of_a_hole(images):
    out = backend(Augmentation(pad=0, flip=0, cutout=8, cutout_p=0.25))(images.repeat(4, 1, 1, 1), seed=6)
    holes = [int((o == 0).all(dim=0).sum()) for o in out]
    assert set(holes) <= {0, 64}
    assert 43 <= holes.count(64) <= 85  # 64 of 256 expected: within three standard deviations


def test_shift_scale_and_rotation_have_the_given_ranges():
    # Each pixel encodes its position, so the affine map can be fitted to the middle of the output.
    y, x = np.mgrid[:32, :32]
    image = torch.from_numpy(np.stack([8 * x, 8 * y, np.full_like(x, 128)], axis=2).astype(np.uint8))
    move = ShiftScaleRotate(shift=0.1, scale=0.2, rotate=15, p=0.5)
    policy = Augmentation(pad=0, flip=0, cutout=0, shift_scale_rotate=move)
    pixels = denormalize(backend(policy)(image.expand(400, -1, -1, -1), seed=7), CIFAR10_MEAN, CIFAR10_STD).numpy()
    middle = (slice(12, 20), slice(12, 20))
    at = np.column_stack([x[middle].ravel() - 15.5, y[middle].ravel() - 15.5, np.ones(64)])
    moved, maps = 0, []
    for output in pixels:
        source = output[middle][..., :2].reshape(-1, 2) / 8.0 - 15.5
        if np.array_equal(output, image.numpy()):
            continue
        moved += 1
        maps.append(np.linalg.lstsq(at, source, rcond=None)[0])
    assert 170 <= moved <= 230  # of 400 fair coins
    matrices = np.array(maps)  # (n, 3, 2): from a pixel of the output to its source
    scales = 1 / np.sqrt(np.abs(np.linalg.det(matrices[:, :2])))
    angles = np.degrees(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    shifts = matrices[:, 2] * scales[:, None]  # in pixels of the output, up to the rotation
    distances = np.hypot(*shifts.T)
    for values, low, high in ((scales, 0.8, 1.2), (angles, -15, 15)):
        width = high - low
        assert low - 0.04 * width <= values.min() <= low + 0.1 * width
        assert high - 0.1 * width <= values.max() <= high + 0.04 * width
    assert 0.7 * 3.2 * 2**0.5 < distances.max() < 1.1 * 3.2 * 2**0.5  # the axes are independent
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.25


def test_brightness_has_the_given_range():
    image = torch.full((300, 32, 32, 3), 100, dtype=torch.uint8)
    jitter = ColorJitter(brightness=0.3, contrast=0, saturation=0, hue=0, p=0.25)
    out = backend(Augmentation(pad=0, flip=0, cutout=0, color_jitter=jitter))(image, seed=8)
    values = denormalize(out, CIFAR10_MEAN, CIFAR10_STD)[:, 0, 0, 0].float()
    assert 70 <= values.min() < 78
    assert 122 < values.max() <= 130
    assert 52 <= int((values != 100).sum()) <= 98  # 75 expected


def test_gray_converts_to_greyscale(images):
    out = backend(Augmentation(pad=0, flip=0, cutout=0, gray=1.0))(images, seed=9)
    pixels = denormalize(out, CIFAR10_MEAN, CIFAR10_STD).int()
    assert int((pixels[..., 0] - pixels[..., 1]).abs().max()) == 0
    luma = images.float() @ torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert (pixels[..., 0] - luma).abs().max() <= 1


def test_denormalize_inverts_normalization(images):
    assert torch.equal(denormalize(backend(NO_AUGMENTATION)(images, 0), CIFAR10_MEAN, CIFAR10_STD), images)


def test_pixels_depend_on_the_seed(images):
    policy = Augmentation()
    first, again, other = backend(policy)(images, 7), backend(policy)(images, 7), backend(policy)(images, 8)
    assert torch.equal(first, again)
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_str_describes_the_policy():
    assert str(backend(Augmentation())) == (
        "Pad 4 (to 40x40, reflect_101) -> RandomCrop 32 -> HorizontalFlip p=0.5 -> "
        "Normalize mean=(0.4914, 0.4822, 0.4465) std=(0.247, 0.2435, 0.2616) -> Cutout 8x8 (filled with the mean)"
    )
    assert str(backend(NO_AUGMENTATION)).startswith("Normalize")
    everything = Augmentation(0, 0.2, 16, 0.5, "replicate", ShiftScaleRotate(p=0.25), ColorJitter(p=0.25), 0.15)
    assert str(backend(everything)) == (
        "HorizontalFlip p=0.2 -> ShiftScaleRotate shift=0.1 scale=0.1 rotate=15 p=0.25 (replicate) -> "
        "ColorJitter 0.3/0.3/0.3/0.2 p=0.25 -> ToGray p=0.15 -> Normalize mean=(0.4914, 0.4822, 0.4465) "
        "std=(0.247, 0.2435, 0.2616) -> Cutout 16x16 p=0.5 (filled with the mean)"
    )
