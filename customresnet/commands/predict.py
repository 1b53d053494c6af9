"""predict: the classes of image files."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from customresnet.data.sources.image_files import read_pictures
from customresnet.data.transforms.batch_backend import BatchBackend
from customresnet.data.transforms.policy import NO_AUGMENTATION
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runs.checkpoint import load_network, read_checkpoint
from customresnet.runs.folders import find_checkpoint, run_folder
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import write_beside
from customresnet.runtime.formatting import percent

BATCH = 256


def predict(images: list[Path] | None = None, top_k: int = 3, ckpt_path: str | None = None) -> list[dict[str, Any]]:
    """Predict the classes of image files.

    Args:
        images: Image files, or folders of them.
        top_k: Number of classes to show per image.
        ckpt_path: last or best (of the newest run), pretrained, a checkpoint, or a run's folder.
    """
    if ckpt_path is None:
        raise UserError("predict needs `ckpt_path`: last, a checkpoint, a run's folder, or pretrained")
    if not images:
        raise UserError("predict needs `images`: image files, or folders of them")
    if top_k < 1:
        raise UserError(f"`top_k` must be at least 1; received {top_k}")
    path = find_checkpoint(ckpt_path, Path("."))
    checkpoint = read_checkpoint(path)
    preprocessing = Preprocessing.from_checkpoint(checkpoint)
    squares, paths, sizes = read_pictures(images, preprocessing.image_size)
    probabilities = classify(load_network(checkpoint), squares, preprocessing)
    rows = prediction_rows(paths, sizes, probabilities, preprocessing, top_k)
    print(prediction_table(rows, preprocessing.image_size))
    write_beside(run_folder(path) / "predictions.json", rows)
    return rows


@torch.inference_mode()
def classify(network: nn.Module, images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Class probabilities ``(N, num_classes)`` of images ``(N, H, W, 3)`` uint8, in float32 on the CPU."""
    backend = BatchBackend(NO_AUGMENTATION, preprocessing.mean, preprocessing.std, preprocessing.image_size)
    batches = torch.arange(len(images)).split(BATCH)
    return torch.cat([network(backend(images, indices, epoch_seed=0)).softmax(dim=1) for indices in batches])


def prediction_rows(
    paths: list[Path], sizes: list[tuple[int, int]], probabilities: Tensor, preprocessing: Preprocessing, top_k: int
) -> list[dict[str, Any]]:
    """The content of predictions.json: each image, its original width and height, and its most likely classes."""
    classes, side = preprocessing.classes, preprocessing.image_size
    rows = []
    best, indices = probabilities.topk(min(top_k, len(classes)), dim=1)
    for path, (width, height), values, labels in zip(paths, sizes, best.tolist(), indices.tolist(), strict=True):
        top = [{"class": classes[i], "probability": p} for i, p in zip(labels, values, strict=True)]
        resized = (width, height) != (side, side)
        rows.append({"image": str(path), "width": width, "height": height, "resized": resized, "top": top})
    return rows


def prediction_table(rows: list[dict[str, Any]], size: int) -> str:
    """One line per image."""
    width = max(len(row["image"]) for row in rows)
    lines = []
    for row in rows:
        top = "  ".join(f"{t['class']} {percent(t['probability'], 1)}" for t in row["top"])
        note = f"  (from {row['width']}x{row['height']}, resized and center-cropped to {size}x{size})"
        lines.append(f"{row['image']:<{width}}  {top}{note if row['resized'] else ''}")
    return "\n".join(lines)
