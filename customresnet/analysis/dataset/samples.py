"""The mean image and sample images of each class, and a network's predictions for sample images."""

from pathlib import Path

import numpy as np
import torch

from customresnet.analysis.evaluation.galleries import caption
from customresnet.analysis.evaluation.predictions import predict
from customresnet.analysis.page import Section
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runs.checkpoint import load_network, read_checkpoint
from customresnet.runtime.errors import UserError
from customresnet.runtime.formatting import listed, one_line
from customresnet.runtime.pictures import image_grid

MOST_SAMPLES = 2000
MOST_ROWS = 40
"""With more classes, a row may show several."""


def mean_images(images: LabelledImages) -> np.ndarray:
    """The mean image of each class: ``(classes, H, W, 3)`` float64, NaN for a class without images."""
    means = np.full((len(images.classes), *images.images.shape[1:]), np.nan)
    for label in images.labels.unique().tolist():
        members = torch.nonzero(images.labels == label)[:, 0]
        total = sum(images.images[part].sum(0) for part in members.split(1000))  # int64: exact
        means[label] = np.asarray(total) / len(members)
    return means


def class_images(images: LabelledImages, count: int = 10, seed: int = 0) -> Section:
    """The mean image and up to ``count`` random images of each class; fewer if there are very many classes."""
    count = max(1, min(count, MOST_SAMPLES // len(images.classes)))
    columns = count if len(images.classes) <= MOST_ROWS else count * max(1, 10 // count)
    means = np.nan_to_num(mean_images(images)).round().astype(np.uint8)
    generator = np.random.default_rng(seed)
    rows: list[np.ndarray | None] = []
    captions: list[str] = []
    chosen = {}
    for label, name in enumerate(images.classes):
        members = generator.permutation(np.flatnonzero(images.labels.numpy() == label))[:count]
        chosen[name] = members.tolist()
        rows += [*images.images[members].numpy(), *[None] * (count - len(members))]
        captions += [one_line(name), *[""] * (count - 1)]
    return Section(
        "samples",
        "Mean and sample images",
        {
            "The mean training image of each class shows the typical position and colors of its objects.": image_grid(
                means, [one_line(name) for name in images.classes], columns=10, classes=images.classes
            ),
            f"Random training images, up to {count} of each class.{' Each row is one class.' * (columns == count)}": (
                image_grid(rows, captions, columns, classes=images.classes)
            ),
        },
        {"training_images": chosen},
    )


def sample_predictions(test: LabelledImages, checkpoint: Path | None, count: int = 20, seed: int = 0) -> Section:
    """Random test images with the prediction of a checkpoint's network, and its confidence.

    Raises:
        UserError: The checkpoint was trained on other classes or another image size.
    """
    section = Section("predictions", "Sample predictions")
    if checkpoint is None:
        section.missing = "no checkpoint was given"
        return section
    saved = read_checkpoint(checkpoint)
    prep = Preprocessing.from_checkpoint(saved)
    test = test.in_order_of(prep.classes)
    if prep.classes != test.classes:
        raise UserError(
            f"`ckpt_path` {checkpoint} was trained on the classes {listed(prep.classes, 10)}; "
            f"`source` and `root` have {listed(test.classes, 10)}"
        )
    if prep.image_size != test.images.shape[1]:
        raise UserError(
            f"`ckpt_path` {checkpoint} was trained on images of {prep.image_size} pixels; received "
            f"{test.images.shape[1]} pixels: set `image_size` to {prep.image_size}"
        )
    indices = np.random.default_rng(seed).permutation(len(test))[:count]
    predictions = predict(load_network(saved), test.subset(torch.from_numpy(indices)), prep)
    section.table = [
        {
            "test image": int(index),
            "class": test.classes[int(predictions.labels[i])],
            "predicted": test.classes[int(predictions.predicted[i])],
            "confidence": round(float(predictions.confidence[i]), 4),
            "right": "yes" if predictions.correct[i] else "no",
        }
        for i, index in enumerate(indices)
    ]
    correct = int(predictions.correct.sum())
    section.numbers = {"checkpoint": str(checkpoint), "right": correct, "images": section.table}
    section.text = [
        f"{correct} of these {len(indices)} predictions are correct. The test command evaluates all test images."
    ]
    captions = [caption(predictions, i) + ("" if predictions.correct[i] else " ✗") for i in range(len(indices))]
    text = (
        "Random test images: the true class, and below it the predicted class with its confidence. ✗ marks a mistake."
    )
    pictures = predictions.data.images.numpy()
    section.figures[text] = image_grid(pictures, captions, columns=5, lines=2, classes=test.classes)
    return section
