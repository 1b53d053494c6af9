"""Test images with a duplicate or near-duplicate among the training images.

The measure uses no network. It compares difference-of-Gaussians images (sigma 0.7 minus sigma 2 pixels), which do not
depend on brightness and smooth backgrounds. The similarity of two images is the normalized correlation of these over
all three channels, the maximum over mirroring and shifts of up to 3 pixels; 1 is the same picture at any brightness and
contrast.

At the threshold of 0.85 it finds 299 of CIFAR-10's 10,000 test images. By eye, about 97 in 100 of these pairs show the
same photograph, or the same object from the same position. The others are mostly similar silhouettes of aircraft and
ships, which become more common at lower thresholds. Barz and Denzler (2020, "Do we train on test data? Purging CIFAR of
near-duplicates", ciFAIR) found 286 such test images with CNN features and by eye.

Only pairs with similar 8x8 thumbnails are compared, since comparing all pairs would take days. Of 500 added copies it
finds 99 in 100 after mirroring, a change of brightness, noise (15 of 255), JPEG compression (quality 30) or a shift by
1 pixel, half of those shifted by 2 pixels, and few of those shifted by 3 or enlarged by a seventh.
"""

from dataclasses import dataclass
from hashlib import sha256

import torch
import torch.nn.functional as F
from torch import Tensor

from customresnet.analysis.page import Section
from customresnet.data.labelled_images import LabelledImages
from customresnet.runtime.errors import UserError
from customresnet.runtime.formatting import one_line, percent
from customresnet.runtime.pictures import image_grid

THRESHOLD = 0.85
SIZE = 32
"""Side in pixels to which images are downsampled before they are compared."""
SHIFT = 3
CANDIDATES = 10
"""Training images compared with each test image and its mirror image: those with the most similar thumbnails."""
LEAST_CANDIDATE = 0.8
"""Minimum correlation of thumbnails for a pair to be compared; near-duplicates exceed it."""
SHOWN = 40
MANY = 0.1
"""Above this proportion of test images, near-duplicates are more likely similar images than copies."""


@dataclass(frozen=True)
class Duplicate:
    """The index of a test image, and of the training image most similar to it or, if mirrored, to its mirror image."""

    test: int
    train: int
    similarity: float
    mirrored: bool = False
    exact: bool = False


def check_threshold(threshold: float) -> None:
    """Raise a UserError if a similarity threshold is out of range."""
    if not 0 < threshold <= 1:
        raise UserError(f"`duplicate_threshold` must be above 0 and at most 1; received {threshold:g}")


def find_duplicates(train: Tensor, test: Tensor, threshold: float = THRESHOLD) -> list[Duplicate]:
    """Find all test images with a duplicate or near-duplicate among the training images, most similar first.

    Images are ``(N, H, W, 3)`` uint8. Near-duplicates have at least the similarity ``threshold``.
    """
    by_content: dict[bytes, int] = {}
    for index, image in enumerate(train.numpy()):
        by_content.setdefault(sha256(image.tobytes()).digest(), index)
    found = {}
    for index, image in enumerate(test.numpy()):
        if (same := by_content.get(sha256(image.tobytes()).digest())) is not None:
            found[index] = Duplicate(index, same, 1.0, exact=True)
    tests, trains, mirrored = _candidates(train, test)
    for start in range(0, len(tests), 1000):
        i, j, mirror = (part[start : start + 1000] for part in (tests, trains, mirrored))
        scores = similarity(torch.where(mirror[:, None, None, None], test[i].flip(2), test[i]), train[j])
        for row in torch.nonzero(scores >= threshold)[:, 0].tolist():
            pair = Duplicate(int(i[row]), int(j[row]), min(1.0, float(scores[row])), bool(mirror[row]))
            known = found.get(pair.test)
            if known is None or (not known.exact and pair.similarity > known.similarity):
                found[pair.test] = pair
    return sorted(found.values(), key=lambda pair: (not pair.exact, -pair.similarity, pair.test))


def similarity(images: Tensor, others: Tensor) -> Tensor:
    """Similarity of pairs of images, ``(N, H, W, 3)`` uint8 each -> ``(N,)``, from -1 to 1."""
    ours, theirs = _details(images), _details(others)
    side = SIZE - 2 * SHIFT
    center = ours[:, :, SHIFT:-SHIFT, SHIFT:-SHIFT]
    center = center - center.mean((1, 2, 3), keepdim=True)
    # all shifts at once; the center is small enough that no shift of up to 2 * SHIFT wraps around
    spectrum = torch.fft.rfft2(theirs) * torch.fft.rfft2(center, s=(SIZE, SIZE)).conj()
    product = torch.fft.irfft2(spectrum.sum(1), s=(SIZE, SIZE))[:, : 2 * SHIFT + 1, : 2 * SHIFT + 1]
    window = torch.stack([F.pad(torch.ones(side), (start, 2 * SHIFT - start)) for start in range(2 * SHIFT + 1)])
    sums, squares = (window @ x.sum(1) @ window.T for x in (theirs, theirs**2))
    energy = (squares - sums**2 / center[0].numel()).clamp_min(0) * center.square().sum((1, 2, 3))[:, None, None]
    # clamped for images of a single color, whose energy is 0; others are far above 1
    return (product / energy.sqrt().clamp_min(1)).amax((1, 2))


def _details(images: Tensor) -> Tensor:
    """``(N, H, W, 3)`` uint8 -> ``(N, 3, SIZE, SIZE)``: difference of Gaussians."""
    x = F.adaptive_avg_pool2d(images.permute(0, 3, 1, 2).float(), SIZE)
    fine, coarse = _gaussian(0.7), _gaussian(2.0)
    return fine @ x @ fine.T - coarse @ x @ coarse.T


def _gaussian(sigma: float) -> Tensor:
    """The matrix of a Gaussian blur along one axis."""
    places = torch.arange(SIZE)
    weights = torch.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)


def _candidates(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs to compare: test indices, training indices, and whether the test image is mirrored."""
    theirs = _thumbnails(train)
    pairs = []
    for mirror in (False, True):
        ours = _thumbnails(test.flip(2) if mirror else test)
        for start in range(0, len(ours), 250):
            scores, trains = (ours[start : start + 250] @ theirs.T).topk(min(CANDIDATES, len(theirs)))
            row, column = torch.nonzero(scores >= LEAST_CANDIDATE, as_tuple=True)
            pairs.append((row + start, trains[row, column], torch.full((len(row),), mirror)))
    tests, trains, mirrored = (torch.cat(part) for part in zip(*pairs, strict=True))
    return tests, trains, mirrored


def _thumbnails(images: Tensor) -> Tensor:
    """``(N, H, W, 3)`` uint8 -> ``(N, 192)``: 8x8 averages minus each channel's mean, scaled to length 1."""
    small = [F.adaptive_avg_pool2d(part.permute(0, 3, 1, 2).float(), 8) for part in images.split(1000)]
    x = torch.cat(small)
    x = (x - x.mean((2, 3), keepdim=True)).flatten(1)
    return x / x.norm(dim=1, keepdim=True).clamp_min(1)


def duplicates(train: LabelledImages, test: LabelledImages, threshold: float = THRESHOLD) -> Section:
    """The test images with a duplicate or near-duplicate in training, each next to the most similar training image."""
    check_threshold(threshold)
    pairs = find_duplicates(train.images, test.images, threshold)
    names = [(test.classes[test.labels[p.test]], train.classes[train.labels[p.train]]) for p in pairs]
    table = [
        {
            "test image": p.test,
            "training image": p.train,
            "similarity": round(p.similarity, 4),
            "mirrored": "yes" if p.mirrored else "no",
            "exact copy": "yes" if p.exact else "no",
            "test class": test_class,
            "training class": train_class,
        }
        for p, (test_class, train_class) in zip(pairs, names, strict=True)
    ]
    exact, differ = sum(p.exact for p in pairs), sum(a != b for a, b in names)
    numbers = {
        "threshold": threshold,
        "test_images": len(test),
        "exact": exact,
        "near": len(pairs) - exact,
        "different_labels": differ,
        "pairs": [{name.replace(" ", "_"): value for name, value in row.items()} for row in table],
    }
    share = len(pairs) / max(1, len(test))
    text = [
        f"{exact:,} of the {len(test):,} test images are exact copies of a training image, and {len(pairs) - exact:,} "
        f"more are near-duplicates ({percent(share)} in total): their similarity to a training image or its mirror "
        f"image, shifted by up to {SHIFT} pixels, is at least {threshold:g}.",
    ]
    if pairs:
        text.append(
            "On these images, accuracy measures memorization, not generalization. The measure cannot tell a copy from "
            "a similar image; compare the pairs below by eye."
        )
        text.append(f"The labels of {differ:,} pairs differ." if differ else "The labels of all pairs agree.")
    if share > MANY:
        text.append(
            "With this many, most are not copies: simple shapes, such as digits, resemble each other. A higher "
            "--duplicate_threshold finds fewer."
        )
    section = Section("duplicates", "Duplicates between train and test", numbers=numbers, text=text)
    if pairs:
        shown = pairs[:SHOWN]
        caption = (
            f"Pairs of a test image (left) and the most similar training image (right), with their similarity: the "
            f"{len(shown)} most similar of {len(pairs):,} pairs. The table lists all."
        )
        images, captions = [], []
        for p, (test_class, train_class) in zip(shown, names, strict=False):
            kind = "exact copy" if p.exact else f"{p.similarity:.3f}" + (" mirrored" if p.mirrored else "")
            images += [test.images[p.test], train.images[p.train]]
            captions += [f"test {p.test}\n{one_line(test_class)}", f"{kind}\n{one_line(train_class)}"]
        pictures = torch.stack(images).numpy()
        section.figures[caption] = image_grid(pictures, captions, columns=8, lines=2, classes=test.classes)
        section.table = table
    return section
