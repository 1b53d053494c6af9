"""Show and keep what validate, test and predict found."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from customresnet.data.datamodule import Preprocessing
from customresnet.training import runs
from customresnet.training.run_log import write_atomically


def write_beside(ckpt_path: str, name: str, content: Any) -> str:
    """Write a result as JSON into the folder of the checkpoint's run; returns the line that says so."""
    path = runs.run_folder(Path(ckpt_path)) / name
    try:
        write_atomically(path, json.dumps(content, indent=1))
    except OSError as error:
        return f"warning: could not write {path} ({error})"
    return f"written: {path}"


def evaluation_result(figures: Mapping[str, float], total: int, source: str, ckpt_path: str) -> dict[str, Any]:
    """The JSON of validate and test: loss, accuracy, and how many of how many images are right."""
    stage = "val" if "val/acc" in figures else "test"
    counts = {f"{stage}/correct": round(figures[f"{stage}/acc"] * total), f"{stage}/images": total}
    return {**figures, **counts, "source": source, "checkpoint": ckpt_path}


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
