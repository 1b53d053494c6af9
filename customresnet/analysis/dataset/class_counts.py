"""The number of images in each class, and their size."""

import numpy as np
import torch

from customresnet.analysis.page import Section
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.labelled_images import LabelledImages


def class_counts(data: CIFAR10DataModule) -> Section:
    """Count the images of each class in train and test."""
    from matplotlib.figure import Figure

    train, test = data.train_images, data.test_images
    counts = {
        split: torch.bincount(images.labels, minlength=len(images.classes)).tolist()
        for split, images in (("train", train), ("test", test))
    }
    table = [
        {"class": name, "train": in_train, "test": in_test}
        for name, in_train, in_test in zip(train.classes, counts["train"], counts["test"], strict=True)
    ]
    figure = Figure(figsize=(8, 1 + 0.35 * len(table)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(table))
    for offset, (split, color) in zip((-0.2, 0.2), (("train", "tab:blue"), ("test", "tab:orange")), strict=True):
        axes.barh(places + offset, counts[split], height=0.4, color=color, label=split)
    axes.set_yticks(places, train.classes)
    axes.set(xlabel="images", ylim=(len(table) - 0.5, -0.5))
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    size = f"All are {_size(train)} pixels, RGB."
    if data.image_size:
        size += f" Other sizes were resized to --data.image_size {data.image_size} and center-cropped."
    if data.source == "digits":
        size += " The original digits are 8x8."
    held_out = f" (and {data.val_size:,} held out for validation)" if data.val_size else ""
    text = f"{len(train):,} training images{held_out}, {len(test):,} test images, {len(table)} classes. {size}"
    caption = "Images in each class. In a balanced data set, all bars of one color have the same length."
    numbers = {"summary": text, "classes": table, "image_size": train.images.shape[1]}
    return Section("classes", "Classes", {caption: figure}, numbers, [text], table=table)


def _size(images: LabelledImages) -> str:
    return f"{images.images.shape[2]}x{images.images.shape[1]}"
