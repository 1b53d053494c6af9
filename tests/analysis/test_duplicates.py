"""Planted copies are found with the training image that they come from, and nothing else is."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from customresnet import CIFAR10DataModule
from customresnet.analysis.dataset.duplicates import Duplicate, duplicates, find_duplicates, similarity
from customresnet.analysis.page import save
from customresnet.data.labelled_images import LabelledImages
from customresnet.runtime.errors import UserError

ROOT = os.environ.get("CIFAR10_ROOT")


def pictures(count: int, seed: int, size: int = 32) -> torch.Tensor:
    """Unrelated pictures with coarse and fine structure, uint8, not saturated by a change of brightness."""
    generator = torch.Generator().manual_seed(seed)
    sums = torch.zeros(count, 3, size, size)
    for cells, weight in ((3, 60.0), (7, 40.0), (16, 15.0), (size, 5.0)):
        noise = torch.randn(count, 3, cells, cells, generator=generator)
        sums += weight * F.interpolate(noise, size=(size, size), mode="bicubic")
    return (128 + 0.6 * sums).clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="module")
def train() -> torch.Tensor:
    return pictures(300, seed=0)


def noisy(image: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return (image + 4 * noise).clamp(0, 255).to(torch.uint8)


def brighter(image: torch.Tensor) -> torch.Tensor:
    return (image * 0.7 + 40).to(torch.uint8)


def shifted(image: torch.Tensor) -> torch.Tensor:
    return image.roll((1, -1), dims=(0, 1))


def changed_in_a_corner(image: torch.Tensor) -> torch.Tensor:
    image = image.clone()
    image[0, 0] ^= 255
    return image


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("change", [noisy, brighter, shifted, changed_in_a_corner])
def test_a_changed_copy_is_found_with_its_original(train, change, mirrored):
    test = pictures(40, seed=1)
    copy = change(train[123])
    test[7] = copy.flip(1) if mirrored else copy
    (found,) = find_duplicates(train, test)
    assert (found.test, found.train, found.mirrored, found.exact) == (7, 123, mirrored, False)
    assert 0.85 <= found.similarity <= 1


def test_exact_copies_come_first_and_a_mirrored_copy_is_not_exact(train):
    test = pictures(40, seed=1)
    test[3], test[5] = train[200].flip(1), train[100]
    exact, mirrored = find_duplicates(train, test)
    assert exact == Duplicate(5, 100, 1.0, exact=True)
    assert (mirrored.test, mirrored.train, mirrored.mirrored, mirrored.exact) == (3, 200, True, False)
    assert mirrored.similarity == pytest.approx(1, abs=1e-4)


def test_unrelated_images_are_not_found(train):
    assert find_duplicates(train, pictures(200, seed=1)) == []
    noise = torch.randint(0, 256, (200, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert find_duplicates(noise[:100], noise[100:]) == []


def test_the_most_similar_of_several_originals_is_reported(train):
    train = train.clone()
    train[10], train[20] = noisy(train[30]), brighter(noisy(noisy(train[30])))
    (found,) = find_duplicates(train[:30], train[30:31])
    assert found.train == 10


def test_images_of_one_color_are_duplicates_only_if_equal():
    plain = torch.stack([torch.full((32, 32, 3), value, dtype=torch.uint8) for value in (0, 90, 200)])
    assert find_duplicates(plain[:2], plain[1:]) == [Duplicate(0, 1, 1.0, exact=True)]
    assert similarity(plain, plain).tolist() == pytest.approx([0, 0, 0], abs=1e-3)


def test_a_single_training_image_and_larger_images():
    large = pictures(3, seed=0, size=48)
    (found,) = find_duplicates(large[:1], torch.stack([large[0].flip(1), large[1]]))
    assert (found.test, found.train, found.mirrored) == (0, 0, True)


def test_similarity_is_the_normalized_correlation_at_the_best_shift(train):
    def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
        places = np.arange(32)
        weights = np.exp(-((places[:, None] - places[None]) ** 2) / (2 * sigma**2))
        weights /= weights.sum(1, keepdims=True)
        return np.einsum("iy,jx,yxc->ijc", weights, weights, image.astype(np.float64))

    def details(image: torch.Tensor) -> np.ndarray:
        return blurred(image.numpy(), 0.7) - blurred(image.numpy(), 2.0)

    others = torch.cat([train[1:5], noisy(train[0])[None]])
    center = details(train[0])[3:29, 3:29]
    for other, measured in zip(others, similarity(train[:1].expand(5, -1, -1, -1), others), strict=True):
        theirs = details(other)
        windows = [theirs[y : y + 26, x : x + 26] for y in range(7) for x in range(7)]
        best = max(np.corrcoef(center.ravel(), window.ravel())[0, 1] for window in windows)
        assert float(measured) == pytest.approx(best, abs=1e-4)


# --------------------------------------------------------------------------------------------------------- the section


def test_the_section_lists_each_pair_and_counts_different_labels(train, tmp_path):
    test = pictures(20, seed=1)
    test[0], test[1], test[2] = train[4], train[9].flip(1), noisy(train[7])
    classes = ("cat", "dog")
    labels = torch.zeros(20, dtype=torch.int64)
    labels[1] = 1
    section = duplicates(LabelledImages(train, torch.zeros(300).long(), classes), LabelledImages(test, labels, classes))
    assert (section.numbers["exact"], section.numbers["near"], section.numbers["different_labels"]) == (1, 2, 1)
    assert "1 of the 20 test images are exact copies" in section.text[0]
    assert any("The labels of 1 pairs differ." in sentence for sentence in section.text)
    save(section, tmp_path)
    rows = list(csv.DictReader((tmp_path / "duplicates.csv").read_text().splitlines()))
    assert [(row["test image"], row["training image"]) for row in rows] == [("0", "4"), ("1", "9"), ("2", "7")]
    assert [(row["test class"], row["training class"]) for row in rows] == [
        ("cat", "cat"),
        ("dog", "cat"),
        ("cat",) * 2,
    ]
    assert [row["mirrored"] for row in rows] == ["no", "yes", "no"]
    assert [row["exact copy"] for row in rows] == ["yes", "no", "no"]


def test_a_higher_threshold_finds_fewer_and_without_pairs_there_is_no_figure(train):
    classes = ("cat", "dog")
    images = LabelledImages(train, torch.zeros(300).long(), classes)
    changed = LabelledImages(noisy(train[:1]), torch.zeros(1).long(), classes)
    assert len(duplicates(images, changed).table) == 1
    section = duplicates(images, changed, threshold=1.0)
    assert (section.figures, section.table, section.numbers["near"]) == ({}, [], 0)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.1, float("nan")])
def test_an_impossible_threshold_is_refused(train, threshold):
    images = LabelledImages(train, torch.zeros(300).long(), ("cat", "dog"))
    with pytest.raises(UserError, match="`duplicate_threshold` must be above 0 and at most 1; received"):
        duplicates(images, images, threshold)


@pytest.mark.real_data
@pytest.mark.skipif(not ROOT, reason="CIFAR10_ROOT names no folder or .zip of the images")
def test_cifar10_has_as_many_as_the_docstring_says():
    data = CIFAR10DataModule(source="folder", root=Path(ROOT), seed=0)
    data.setup("fit")
    found = find_duplicates(data.train_images.images, data.test_images.images)
    assert not any(pair.exact for pair in found)
    assert len(found) == pytest.approx(299, abs=1)  # rounding decides at the threshold
