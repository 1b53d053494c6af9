"""A labelled image set at a glance: counts, pixel statistics, samples, augmentation, predictions and duplicates."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from customresnet.analysis.dataset.augmentations import augmentations
from customresnet.analysis.dataset.duplicates import THRESHOLD, duplicates
from customresnet.analysis.dataset.samples import class_images, sample_predictions
from customresnet.analysis.page import Section, write_page
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.labelled_images import LabelledImages
from customresnet.runs import folders as runs
from customresnet.runtime import files
from customresnet.runtime.errors import UserError
from customresnet.runtime.screen import interactive

CHANNELS = {"red": "tab:red", "green": "tab:green", "blue": "tab:blue"}


def dataset(
    data: CIFAR10DataModule,
    ckpt_path: str | None = None,
    output: Path | None = None,
    samples: int = 10,
    augmented: int = 19,
    predictions: int = 20,
    duplicate_threshold: float = THRESHOLD,
) -> Path:
    """Look at a data set: writes a page of pictures, with their numbers as files beside it.

    Args:
        data: The images.
        ckpt_path: Shows predictions too: last, a checkpoint or a run's folder.
        output: Folder to write into. Default: dataset/ and the source's name.
        samples: Images shown of each class.
        augmented: How often one image is shown augmented.
        predictions: Test images shown with their predicted class.
        duplicate_threshold: Similarity, up to 1, from which a test and a training image are called near-duplicates.

    Returns:
        The path of the page.
    """
    for flag, number in (("samples", samples), ("augmented", augmented), ("predictions", predictions)):
        if number < 1:
            raise UserError(f"--{flag} must be at least 1; received {number}")
    if not 0 < duplicate_threshold <= 1:
        raise UserError(f"--duplicate_threshold must be above 0 and at most 1; received {duplicate_threshold:g}")
    output = output or Path("dataset") / data.source
    files.make_folder(output, "--output")
    checkpoint = runs.find_checkpoint(ckpt_path, Path(".")) if ckpt_path else None
    data.prepare_data()
    data.setup("fit")
    train, test = data.train_images, data.test_images
    looks: list[Callable[[], Section]] = [
        lambda: class_counts(data),
        lambda: pixel_statistics(data),
        lambda: class_images(train, samples, data.seed),
        lambda: augmentations(data, augmented),
        lambda: sample_predictions(test, checkpoint, predictions, data.seed),
        lambda: duplicates(train, test, duplicate_threshold),
    ]
    views = [look() for look in tqdm(looks, "views", leave=False, unit="view", disable=not interactive())]
    found = {view.name: view.numbers for view in views}
    name = data.root.name if data.source == "folder" and data.root else data.source
    page = write_page(output, f"Data set: {name}", views)
    print(found["classes"]["summary"])
    for figure in ("mean", "std"):
        measured, used = (_listed(found["pixels"][which][figure]) for which in ("measured", "used"))
        print(f"{figure:4} of the training images {measured}; used: {used}")
    same = found["duplicates"]
    print(f"test images also in train: {same['exact']:,} exactly, {same['near']:,} nearly (--duplicate_threshold)")
    print(f"written: {files.shown(page.resolve())}")
    return page


def _size(images: LabelledImages) -> str:
    return f"{images.images.shape[2]}x{images.images.shape[1]}"


def _listed(numbers: list[float]) -> str:
    return "[" + ", ".join(f"{number:.6f}" for number in numbers) + "]"


# -------------------------------------------------------------------------------------------------------------- counts


def class_counts(data: CIFAR10DataModule) -> Section:
    """Show how many images each class has, and how large they are."""
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
        size += f" --data.image_size {data.image_size} made them so: other sizes were resized, then cut square."
    if data.source == "digits":
        size += " The digits themselves are 8x8."
    held_out = f" ({data.val_size:,} more are held out for validation)" if data.val_size else ""
    text = f"{len(train):,} training images{held_out}, {len(test):,} test images, {len(table)} classes. {size}"
    caption = "Images of each class; in a balanced set all bars of one colour are equally long."
    numbers = {"summary": text, "classes": table, "image_size": train.images.shape[1]}
    return Section("classes", "Classes", {caption: figure}, numbers, [text], table=table)


# -------------------------------------------------------------------------------------------------------------- pixels


def pixel_counts(images: Tensor) -> np.ndarray:
    """How often each value occurs in each channel: ``(N, H, W, 3)`` uint8 -> ``(3, 256)``."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for part in images.split(1000):  # bincount takes 8 bytes a pixel
        for channel in range(3):
            counts[channel] += np.bincount(part[..., channel].numpy().ravel(), minlength=256)
    return counts


def pixel_statistics(data: CIFAR10DataModule) -> Section:
    """Compare mean and standard deviation of the training images with the constants that normalise them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    counts = pixel_counts(data.train_images.images)
    values = np.arange(256) / 255
    shares = counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    measured = {"mean": mean.tolist(), "std": std.tolist()}
    used = {"mean": list(data.mean), "std": list(data.std)}
    table = [
        {
            "channel": channel,
            **{
                f"{name}{what}": f"{value:.6f}"
                for name in ("mean", "std")
                for what, value in (
                    ("", measured[name][i]),
                    (", used", used[name][i]),
                    (", apart", abs(measured[name][i] - used[name][i])),
                )
            },
        }
        for i, channel in enumerate(CHANNELS)
    ]
    apart = max(abs(a - b) for name in measured for a, b in zip(measured[name], used[name], strict=True))
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for (channel, color), share in zip(CHANNELS.items(), shares, strict=True):
        axes.step(values, share, where="mid", color=color, linewidth=1.2, label=channel)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(xlabel="pixel value, from 0 (none) to 1 (full)", ylabel="share of the training pixels", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    if apart < 5e-5:
        verdict = "The constants used are those of the training images, rounded to four digits."
    else:
        rounded = {name: [round(value, 4) for value in found] for name, found in measured.items()}
        verdict = (
            f"The constants used are up to {apart:.4f} away from them; to train with these, pass "
            f'--data.mean "{rounded["mean"]}" --data.std "{rounded["std"]}".'
        )
    return Section(
        "pixels",
        "Pixel statistics",
        {"How often each value occurs in each channel; peaks at the ends are pixels that are black or white.": figure},
        {"measured": measured, "used": used, "largest_difference": apart, "counts": counts.tolist()},
        [f"Mean and standard deviation of the training images' pixels, scaled to [0, 1]. {verdict}"],
        table=table,
    )
