"""Images of a data set to look at: what each class looks like, and what a network says of a few."""

from pathlib import Path

import numpy as np
import torch

from customresnet.analysis.evaluation.galleries import caption
from customresnet.analysis.evaluation.predictions import run
from customresnet.analysis.page import Section
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runs import folders as runs
from customresnet.runs.network import load_network
from customresnet.runtime.errors import UserError
from customresnet.runtime.pictures import image_grid


def mean_images(images: LabelledImages) -> np.ndarray:
    """The mean image of each class: ``(classes, H, W, 3)`` float64, NaN for a class without images."""
    means = np.full((len(images.classes), *images.images.shape[1:]), np.nan)
    for label in images.labels.unique().tolist():
        members = torch.nonzero(images.labels == label)[:, 0]
        total = sum(images.images[part].sum(0) for part in members.split(1000))  # int64: exact
        means[label] = np.asarray(total) / len(members)
    return means


def class_images(images: LabelledImages, count: int = 10, seed: int = 0) -> Section:
    """Show the mean image of each class and ``count`` random samples of it."""
    means = np.nan_to_num(mean_images(images)).round().astype(np.uint8)
    generator = np.random.default_rng(seed)
    size = images.images.shape[1]
    rows = np.zeros((len(images.classes), count, size, size, 4), dtype=np.uint8)  # transparent where a class has fewer
    chosen = {}
    for label, name in enumerate(images.classes):
        members = generator.permutation(np.flatnonzero(images.labels.numpy() == label))[:count]
        rows[label, : len(members), ..., :3] = images.images[members].numpy()
        rows[label, : len(members), ..., 3] = 255
        chosen[name] = members.tolist()
    names = [name if place == 0 else "" for name in images.classes for place in range(count)]
    return Section(
        "samples",
        "Mean and sample images",
        {
            "The mean of each class's training images: it shows where, and in which colours, the class usually "
            "appears.": image_grid(means, images.classes, columns=10),
            f"Random training images, up to {count} of each class; each row is one class.": image_grid(
                rows.reshape(-1, size, size, 4), names, columns=count
            ),
        },
        {"training_images": chosen},
    )


def sample_predictions(test: LabelledImages, checkpoint: Path | None, count: int = 20, seed: int = 0) -> Section:
    """Show random test images with the class that a checkpoint's network names, and how sure it is.

    Raises:
        UserError: The checkpoint was trained on other classes or another size of images.
    """
    view = Section("predictions", "Sample predictions")
    if checkpoint is None:
        view.missing = "no --ckpt_path was given"
        return view
    saved = runs.read_checkpoint(checkpoint)
    prep = Preprocessing.from_checkpoint(saved)
    if prep.classes != test.classes:
        raise UserError(
            f"--ckpt_path {checkpoint} was trained on the classes {', '.join(prep.classes)}; "
            f"the images of --data.source and --data.root are of {', '.join(test.classes)}"
        )
    if prep.image_size != test.images.shape[1]:
        raise UserError(
            f"--ckpt_path {checkpoint} was trained on images of {prep.image_size} pixels, these have "
            f"{test.images.shape[1]}: pass --data.image_size {prep.image_size}"
        )
    indices = np.random.default_rng(seed).permutation(len(test))[:count]
    outputs = run(load_network(saved), test.subset(torch.from_numpy(indices)), prep)
    view.table = [
        {
            "test image": int(index),
            "class": test.classes[int(outputs.labels[i])],
            "predicted": test.classes[int(outputs.predicted[i])],
            "confidence": round(float(outputs.confidence[i]), 4),
            "right": "yes" if outputs.correct[i] else "no",
        }
        for i, index in enumerate(indices)
    ]
    right = int(outputs.correct.sum())
    view.numbers = {"checkpoint": str(checkpoint), "right": right, "images": view.table}
    view.text = [f"{right} of these {len(indices)} are right; the accuracy on all test images is what `test` measures."]
    captions = [caption(outputs, i) + ("" if outputs.correct[i] else " ✗") for i in range(len(indices))]
    sentence = (
        "Random test images: the true class, and below it the predicted one with its confidence; ✗ marks mistakes."
    )
    view.figures[sentence] = image_grid(outputs.data.images.numpy(), captions, columns=5, lines=2)
    return view
