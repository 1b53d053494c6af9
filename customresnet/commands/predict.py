"""predict: the classes of image files."""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from customresnet.data.sources.image_files import image_suffixes, is_hidden, read_regular, read_square
from customresnet.data.transforms.batch_backend import BatchBackend
from customresnet.data.transforms.policy import NO_AUGMENTATION
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.models.tta import flip_tta
from customresnet.runs.checkpoint import load_network, read_checkpoint
from customresnet.runs.folders import find_checkpoint, run_folder
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import write_beside
from customresnet.runtime.formatting import percent

BATCH = 256
THREADS = 4
"""Image files that are decoded at the same time: each may take hundreds of megabytes."""

Picture = tuple[Path, np.ndarray, tuple[int, int]]
"""A file, its image ``(size, size, 3)`` uint8, and its original width and height."""


class IncompleteError(UserError):
    """Some images could not be read; the others were predicted."""

    code = 1


def predict(
    images: list[Path] | None = None, top_k: int = 3, ckpt_path: str | None = None, tta: bool = False
) -> list[dict[str, Any]]:
    """Predict the classes of image files.

    Args:
        images: Image files, or folders of them.
        top_k: Number of classes to show per image.
        ckpt_path: last or best (of the newest run), pretrained, a checkpoint, or a run's folder.
        tta: Average the logits of each image and its mirror image (test-time augmentation).

    Raises:
        IncompleteError: Some files could not be read; predictions.json holds the others.
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
    classes = preprocessing.classes
    if top_k > len(classes):
        warn(f"the network has only {len(classes)} classes, fewer than top_k {top_k}: {', '.join(classes)}")
    network = load_network(checkpoint)
    paths = list(find_pictures(images))
    output = run_folder(path) / "predictions.json"
    with suppress(OSError):
        output.unlink()  # if this command is stopped, no older predictions remain
    rows: list[dict[str, Any]] = []
    with flip_tta(network, tta):
        for batch in read_batches(paths, preprocessing.image_size):
            rows += prediction_rows(batch, classify(network, batch, preprocessing), preprocessing, top_k)
    try:
        if rows:
            print(prediction_table(rows, preprocessing.image_size))
    finally:  # also if the reader of the output is gone
        write_beside(output, rows)
    if len(rows) < len(paths):
        raise IncompleteError(f"{len(paths) - len(rows)} of {len(paths)} images cannot be read")
    return rows


def find_pictures(given: Iterable[Path]) -> Iterator[Path]:
    """Each file, and the image files in each folder; hidden ones and those of other kinds are left out.

    Raises:
        UserError: A path does not exist, or a folder contains no image.
    """
    for path in map(Path, given):
        if not os.path.isdir(path):
            if not os.path.exists(path):
                raise UserError(f"`images` {path}: no such file or directory")
            yield path
            continue
        inside, others = pictures_under(path)
        skipped = ", ".join(f"{number} {kind}" for kind, number in sorted(others.items()))
        if not inside:
            raise UserError(f"`images` {path}: no image in this directory" + (f", only {skipped}" if skipped else ""))
        if skipped:
            warn(f"not read in {path}: {skipped}")
        yield from inside


def pictures_under(top: Path) -> tuple[list[Path], Counter[str]]:
    """The image files in a folder and its subfolders, and the number of other files by suffix."""
    found: list[Path] = []
    others: Counter[str] = Counter()
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(top, followlinks=True, onerror=lambda error: warn(f"not read: {error}")):
        if (real := os.path.realpath(folder)) in seen:  # links may form a loop
            subfolders.clear()
            continue
        seen.add(real)
        # links last: an image is listed in its own folder
        visible = [name for name in subfolders if not is_hidden(name)]
        subfolders[:] = sorted(visible, key=lambda name: (os.path.islink(os.path.join(folder, name)), name))
        for path in (Path(folder, name) for name in files if not is_hidden(name)):
            suffix = path.suffix.lower()
            if suffix not in image_suffixes():
                others[suffix or "without suffix"] += 1
            elif path.is_file():
                found.append(path)
            else:
                others[f"{suffix} that is no regular file"] += 1
    return sorted(found), others


def read_batches(paths: list[Path], size: int) -> Iterator[list[Picture]]:
    """Read image files in batches. Those that cannot be read are named on stderr and left out."""

    def read(path: Path) -> Picture | UserError:
        try:
            return path, *read_square(str(path), lambda: read_regular(path), size)
        except UserError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(paths), BATCH):
            batch = []
            for outcome in pool.map(read, paths[start : start + BATCH]):
                if isinstance(outcome, UserError):
                    warn(str(outcome))
                else:
                    batch.append(outcome)
            if batch:
                yield batch


@torch.inference_mode()
def classify(network: nn.Module, batch: list[Picture], preprocessing: Preprocessing) -> Tensor:
    """Class probabilities ``(N, num_classes)`` in float32 on the CPU."""
    backend = BatchBackend(NO_AUGMENTATION, preprocessing.mean, preprocessing.std, preprocessing.image_size)
    images = torch.from_numpy(np.stack([square for _, square, _ in batch]))
    return network(backend(images, torch.arange(len(images)), epoch_seed=0)).softmax(dim=1)


def prediction_rows(
    batch: list[Picture], probabilities: Tensor, preprocessing: Preprocessing, top_k: int
) -> list[dict[str, Any]]:
    """The content of predictions.json: each image, its original width and height, and its most likely classes."""
    classes, side = preprocessing.classes, preprocessing.image_size
    rows = []
    best, indices = probabilities.topk(min(top_k, len(classes)), dim=1)
    for (path, _, (width, height)), values, labels in zip(batch, best.tolist(), indices.tolist(), strict=True):
        top = [{"class": classes[i], "probability": p} for i, p in zip(labels, values, strict=True)]
        resized = (width, height) != (side, side)
        rows.append({"image": str(path), "width": width, "height": height, "resized": resized, "top": top})
    return rows


def prediction_table(rows: list[dict[str, Any]], size: int) -> str:
    """One line per image."""
    names = [os.fsencode(row["image"]).decode(errors="replace") for row in rows]  # a name may be in any encoding
    width = max(map(len, names))
    lines = []
    for name, row in zip(names, rows, strict=True):
        top = "  ".join(f"{t['class']} {percent(t['probability'], 1)}" for t in row["top"])
        note = f"  (from {row['width']}x{row['height']}, resized and center-cropped to {size}x{size})"
        lines.append(f"{name:<{width}}  {top}{note if row['resized'] else ''}")
    return "\n".join(lines)


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
