"""The batch engine against the Albumentations engine: the same distribution, and the same pixels for the same draws."""

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

POLICY = Augmentation()


def batch_engine(policy: Augmentation = POLICY, size: int = 32) -> BatchBackend:
    return BatchBackend(policy, CIFAR10_MEAN, CIFAR10_STD, size)


def albumentations_draws(policy: Augmentation, images: torch.Tensor, seed: int) -> tuple[torch.Tensor, AugmentParams]:
    """What the Albumentations engine makes of images, and what it drew for each."""
    import albumentations as A

    engine = AlbumentationsBackend(policy, CIFAR10_MEAN, CIFAR10_STD, images.shape[1])
    compose = A.Compose([step.build() for step in engine.steps()], save_applied_params=True)
    compose.set_random_seed(seed)
    pixels, draws = [], []
    for image in images.numpy():
        outcome = compose(image=image)
        applied = dict(outcome["applied_transforms"])
        crop = applied["RandomCrop"]["crop_coords"] if policy.pad else (0, 0)
        holes = applied.get("CoarseDropout", {}).get("holes", [(0, 0, 0, 0)])
        draws.append((crop[1], crop[0], "HorizontalFlip" in applied, "CoarseDropout" in applied, *holes[0][1::-1]))
        pixels.append(outcome["image"])
    columns = [torch.tensor(column) for column in zip(*draws, strict=True)]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), AugmentParams(*columns)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (200, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "policy",
    [
        Augmentation(),
        Augmentation(pad=3, flip=0.3, cutout=5, cutout_p=0.4, border="replicate"),
        Augmentation(pad=0, flip=1.0, cutout=32),
        Augmentation(pad=7, flip=0, cutout=0),
    ],
)
def test_the_same_draws_give_the_same_pixels(images, policy):
    expected, draws = albumentations_draws(policy, images, seed=3)
    prepared = batch_engine(policy).apply(images, torch.arange(200), draws)
    torch.testing.assert_close(prepared, expected, rtol=0, atol=1e-5)
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(prepared == 0, expected == 0)  # the holes, exactly


def test_both_engines_draw_from_the_same_distribution():
    """Of 20,000 draws of each: crops, flips and holes are as likely, and each is uniform."""
    blank = torch.zeros((1, 32, 32, 3), dtype=torch.uint8).expand(20_000, -1, -1, -1)
    _, theirs = albumentations_draws(POLICY, blank, seed=0)
    ours = batch_engine().draw(torch.arange(20_000), epoch_seed=0)
    for name, values in (("top", 9), ("left", 9), ("flip", 2), ("hole_top", 25), ("hole_left", 25)):
        counts = [np.bincount(getattr(draws, name).long().numpy(), minlength=values) for draws in (ours, theirs)]
        assert chi2_contingency(counts).pvalue > 0.001, name
        for count in counts:
            assert len(count) == values
            assert chisquare(count).pvalue > 0.001, name
    assert bool(ours.cut.all())
    assert bool(theirs.cut.all())


def test_the_draws_of_an_image_do_not_depend_on_each_other():
    draws = batch_engine().draw(torch.arange(50_000), epoch_seed=1)
    columns = [getattr(draws, name).long().numpy() for name in ("top", "left", "flip", "hole_top", "hole_left")]
    for number, first in enumerate(columns):
        for second in columns[:number]:
            table = np.zeros((first.max() + 1, second.max() + 1))
            np.add.at(table, (first, second), 1)
            assert chi2_contingency(table).pvalue > 1e-4
        assert chi2_contingency(np.histogram2d(first[1:], first[:-1], bins=first.max() + 1)[0]).pvalue > 1e-4


def test_draws_depend_on_seed_and_image_and_on_nothing_else():
    engine, indices = batch_engine(), torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    whole = engine.draw(torch.arange(1000), epoch_seed=5)
    part = engine.draw(indices[:300], epoch_seed=5)
    other = engine.draw(torch.arange(1000), epoch_seed=6)
    for name in ("top", "left", "flip", "hole_top", "hole_left"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[indices[:300]])
        assert not torch.equal(getattr(other, name), getattr(whole, name))


def test_rare_holes_and_flips_are_as_rare_as_they_are_said_to_be():
    draws = batch_engine(Augmentation(flip=0.2, cutout_p=0.05)).draw(torch.arange(100_000), epoch_seed=2)
    assert float(draws.flip.float().mean()) == pytest.approx(0.2, abs=0.004)
    assert float(draws.cut.float().mean()) == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (Augmentation(shift_scale_rotate=ShiftScaleRotate(p=0.5)), "shift_scale_rotate.p 0.5"),
        (Augmentation(color_jitter=ColorJitter(p=0.25)), "color_jitter.p 0.25"),
        (Augmentation(gray=0.15), "gray 0.15"),
    ],
)
def test_what_it_does_not_know_is_refused(policy, name):
    message = f"--data.engine batch does not move or recolour images; received --data.augment.{name}"
    with pytest.raises(UserError, match=message):
        batch_engine(policy)
