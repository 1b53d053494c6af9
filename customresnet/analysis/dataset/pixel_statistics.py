"""The pixel statistics of a data set, compared with the constants that normalize it."""

import numpy as np
from torch import Tensor

from customresnet.analysis.page import Section
from customresnet.data.datamodule import CIFAR10DataModule

CHANNELS = {"red": "tab:red", "green": "tab:green", "blue": "tab:blue"}


def pixel_counts(images: Tensor) -> np.ndarray:
    """The histogram of each channel: ``(N, H, W, 3)`` uint8 -> ``(3, 256)``."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for part in images.split(1000):  # bincount takes 8 bytes per pixel
        for channel in range(3):
            counts[channel] += np.bincount(part[..., channel].numpy().ravel(), minlength=256)
    return counts


def pixel_statistics(data: CIFAR10DataModule) -> Section:
    """Mean and standard deviation of the training images, compared with the constants that normalize them."""
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
