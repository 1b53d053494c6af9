"""BatchBackend against AlbumentationsBackend: the same distributions, and the same pixels for the same parameters."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.batch_backend import AugmentParams, BatchBackend
from customresnet.data.transforms.policy import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    Augmentation,
    ColorJitter,
    ShiftScaleRotate,
)
from customresnet.runtime.errors import UserError

POLICY = Augmentation().scaled(32)


def batch_backend(policy: Augmentation = POLICY, size: int = 32) -> BatchBackend:
    return BatchBackend(policy, CIFAR10_MEAN, CIFAR10_STD, size)


def with_albumentations(policy: Augmentation, images: torch.Tensor, seed: int) -> tuple[torch.Tensor, AugmentParams]:
    """Images as Albumentations prepares them, and the parameters that it drew."""
    import albumentations as A

    backend = AlbumentationsBackend(policy, CIFAR10_MEAN, CIFAR10_STD, images.shape[1])
    compose = A.Compose([step.build() for step in backend.steps()], save_applied_params=True)
    compose.set_random_seed(seed)
    pixels, params = [], []
    for image in images.numpy():
        output = compose(image=image)
        applied = dict(output["applied_transforms"])
        crop = applied["RandomCrop"]["crop_coords"] if policy.pad else (0, 0)
        holes = applied.get("CoarseDropout", {}).get("holes", [(0, 0, 0, 0)])
        params.append((crop[1], crop[0], "HorizontalFlip" in applied, "CoarseDropout" in applied, *holes[0][1::-1]))
        pixels.append(output["image"])
    columns = [torch.tensor(column) for column in zip(*params, strict=True)]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), AugmentParams(*columns)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (200, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "policy",
    [
        POLICY,
        Augmentation(pad=3, flip=0.3, cutout=5, cutout_p=0.4, border="replicate"),
        Augmentation(pad=0, flip=1.0, cutout=32),
        Augmentation(pad=7, flip=0, cutout=0),
    ],
)
def test_equal_parameters_give_equal_pixels(images, policy):
    expected, params = with_albumentations(policy, images, seed=3)
    prepared = batch_backend(policy).apply(images, torch.arange(200), params)
    torch.testing.assert_close(prepared, expected, rtol=0, atol=1e-5)
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(prepared == 0, expected == 0)  # the holes


def test_both_backends_draw_from_the_same_uniform_distributions():
    blank = torch.zeros((1, 32, 32, 3), dtype=torch.uint8).expand(20_000, -1, -1, -1)
    _, theirs = with_albumentations(POLICY, blank, seed=0)
    ours = batch_backend().make_params(torch.arange(20_000), epoch_seed=0)
    for name, values in (("top", 9), ("left", 9), ("flip", 2), ("hole_top", 25), ("hole_left", 25)):
        counts = [np.bincount(getattr(params, name).long().numpy(), minlength=values) for params in (ours, theirs)]
        assert chi2_contingency(counts).pvalue > 0.001, name
        for count in counts:
            assert len(count) == values
            assert chisquare(count).pvalue > 0.001, name
    assert bool(ours.cut.all())
    assert bool(theirs.cut.all())


def test_the_parameters_of_an_image_are_independent_of_each_other_and_of_the_next_image():
    params = batch_backend().make_params(torch.arange(50_000), epoch_seed=1)
    columns = [getattr(params, name).long().numpy() for name in ("top", "left", "flip", "hole_top", "hole_left")]
    for number, first in enumerate(columns):
        for second in columns[:number]:
            table = np.zeros((first.max() + 1, second.max() + 1))
            np.add.at(table, (first, second), 1)
            assert chi2_contingency(table).pvalue > 1e-4
        assert chi2_contingency(np.histogram2d(first[1:], first[:-1], bins=first.max() + 1)[0]).pvalue > 1e-4


def test_parameters_depend_only_on_seed_and_image():
    backend, indices = batch_backend(), torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    whole = backend.make_params(torch.arange(1000), epoch_seed=5)
    part = backend.make_params(indices[:300], epoch_seed=5)
    other = backend.make_params(torch.arange(1000), epoch_seed=6)
    for name in ("top", "left", "flip", "hole_top", "hole_left"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[indices[:300]])
        assert not torch.equal(getattr(other, name), getattr(whole, name))


def test_flips_and_holes_have_the_given_probabilities():
    policy = Augmentation(flip=0.2, cutout_p=0.05)
    params = batch_backend(policy).make_params(torch.arange(100_000), epoch_seed=2)
    assert float(params.flip.float().mean()) == pytest.approx(0.2, abs=0.004)
    assert float(params.cut.float().mean()) == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Augmentation(shift_scale_rotate=ShiftScaleRotate(p=0.5)), r"`augment\.shift_scale_rotate\.p`; received 0\.5"),
        (Augmentation(color_jitter=ColorJitter(p=0.25)), r"`augment\.color_jitter\.p`; received 0\.25"),
        (Augmentation(gray=0.15), r"`augment\.gray`; received 0\.15"),
    ],
)
def test_an_unsupported_step_raises(policy, message):
    with pytest.raises(UserError, match=f"`engine` batch does not support {message}: pass `engine` albumentations"):
        batch_backend(policy)
