"""Class probabilities of single pictures, as JSON and as a table."""

from pathlib import Path
from typing import Any

from torch import Tensor

from customresnet.data.transforms.preprocessing import Preprocessing


def predictions(
    paths: list[Path], sizes: list[tuple[int, int]], probabilities: Tensor, prep: Preprocessing, top_k: int
) -> list[dict[str, Any]]:
    """The JSON of predict: for each image the ``top_k`` likeliest classes of ``probabilities`` ``(N, classes)``."""
    rows = []
    best, indices = probabilities.topk(min(top_k, len(prep.classes)), dim=1)
    for path, (width, height), values, labels in zip(paths, sizes, best.tolist(), indices.tolist(), strict=True):
        top = [{"class": prep.classes[i], "probability": p} for i, p in zip(labels, values, strict=True)]
        resized = (width, height) != (prep.image_size, prep.image_size)
        rows.append({"image": str(path), "width": width, "height": height, "resized": resized, "top": top})
    return rows


def prediction_table(rows: list[dict[str, Any]], size: int) -> str:
    """One line an image."""
    width = max(len(row["image"]) for row in rows)
    lines = []
    for row in rows:
        top = "  ".join(f"{t['class']} {t['probability']:.1%}" for t in row["top"])
        note = f"  (from {row['width']}x{row['height']}, resized and centre-cropped to {size}x{size})"
        lines.append(f"{row['image']:<{width}}  {top}{note if row['resized'] else ''}")
    return "\n".join(lines)
