"""The images of each class, and the pixel statistics compared with the constants that normalize the images."""

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from customresnet.analysis.page import Section
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.normalization import mean_and_std, pixel_counts
from customresnet.runtime.pictures import name_ticks, numbered

MOST_BARS = 40
"""With more classes, the figure shows how many images they have without their names."""
CHANNELS = {"red": "tab:red", "green": "tab:green", "blue": "tab:blue"}


def class_counts(data: CIFAR10DataModule) -> Section:
    """Count the images of each class in train and test."""
    train, test = data.train_images, data.test_images
    counts = {
        split: torch.bincount(images.labels, minlength=len(images.classes)).tolist()
        for split, images in (("train", train), ("test", test))
    }
    table = [
        {"class": name, **numbered(name, train.classes), "train": in_train, "test": in_test}
        for name, in_train, in_test in zip(train.classes, counts["train"], counts["test"], strict=True)
    ]
    many = len(table) > MOST_BARS
    figure = Figure(figsize=(8, 4 if many else 1 + 0.35 * len(table)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(table))
    for offset, (split, color) in zip((-0.2, 0.2), (("train", "tab:blue"), ("test", "tab:orange")), strict=True):
        if many:
            axes.plot(places + 1, sorted(counts[split], reverse=True), color=color, label=split)
        else:
            axes.barh(places + offset, counts[split], height=0.4, color=color, label=split)
    if many:
        axes.set(
            xlabel="class, from the largest to the smallest", ylabel="images", xlim=(1, len(table)), ylim=(0, None)
        )
    else:
        name_ticks(axes.yaxis, train.classes, 2.2, train.classes)
        axes.set(xlabel="images", ylim=(len(table) - 0.5, -0.5))
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    size = f"All are {_size(train)} pixels, RGB."
    if data.image_size:
        size += f" Other sizes were resized to --data.image_size {data.image_size} and center-cropped."
    if data.source == "digits":
        size += " The original digits are 8x8."
    held_out = f" (and {data.val_size:,} held out for validation)" if data.val_size else ""
    text = f"{len(train):,} training images{held_out}, {len(test):,} test images, {len(table)} classes. {size}"
    same = "each line is flat" if many else "all bars of one color have the same length"
    caption = f"Images in each class. In a balanced data set, {same}."
    numbers = {"summary": text, "classes": table, "image_size": train.images.shape[1]}
    return Section("classes", "Classes", {caption: figure}, numbers, [text], table=table)


def _size(images: LabelledImages) -> str:
    return f"{images.images.shape[2]}x{images.images.shape[1]}"


def pixel_statistics(data: CIFAR10DataModule) -> Section:
    """Mean and standard deviation of the training images, compared with the constants that normalize them."""
    counts = pixel_counts(data.train_images.images)
    levels = np.arange(256) / 255
    shares = counts / counts.sum(1, keepdims=True)
    measured = dict(zip(("mean", "std"), mean_and_std(counts), strict=True))
    used = {"mean": list(data.mean), "std": list(data.std)}
    table: list[dict[str, str]] = [{"channel": channel} for channel in CHANNELS]
    for name in measured:
        for row, ours, theirs in zip(table, measured[name], used[name], strict=True):
            values = {"": ours, ", used": theirs, ", apart": abs(ours - theirs)}
            row |= {f"{name}{what}": f"{value:.6f}" for what, value in values.items()}
    apart = max(abs(a - b) for name in measured for a, b in zip(measured[name], used[name], strict=True))
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for (channel, color), share in zip(CHANNELS.items(), shares, strict=True):
        axes.step(levels, share, where="mid", color=color, linewidth=1.2, label=channel)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(xlabel="pixel value, scaled to [0, 1]", ylabel="percentage of the training pixels", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    if apart < 5e-5:
        verdict = "The constants used are those of the training images, rounded to four digits."
    else:
        rounded = {name: [round(value, 4) for value in found] for name, found in measured.items()}
        verdict = (
            f"The constants used differ by up to {apart:.4f}. To train with the measured ones, pass "
            f'--data.mean "{rounded["mean"]}" --data.std "{rounded["std"]}".'
        )
    caption = "Histogram of the pixel values of each channel. Peaks at the ends are black or saturated pixels."
    return Section(
        "pixels",
        "Pixel statistics",
        {caption: figure},
        {"measured": measured, "used": used, "largest_difference": apart, "counts": counts.tolist()},
        [f"Mean and standard deviation of the training images' pixels, scaled to [0, 1]. {verdict}"],
        table=table,
    )
