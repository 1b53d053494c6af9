"""Image galleries: misclassified images, and the hardest and easiest images of each class."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.runtime.errors import UserError
from customresnet.runtime.formatting import listed, one_line, percent
from customresnet.runtime.pictures import image_grid

Order = Literal["confidence", "random"]
NO_IMAGES = "no images were requested"
MOST_CLASSES = 40
"""With more classes, the hardest and easiest images are shown for those with the lowest accuracy only."""
LOWEST = 20


def choose_misclassified(
    predictions: Predictions, images: int = 20, order: Order = "confidence", pair: str | None = None, seed: int = 0
) -> Tensor:
    """Indices of at most ``images`` misclassified images: the most confident first, or a random sample.

    ``pair``, such as ``cat->dog``, limits them to images of one class predicted as another.
    """
    wrong = (~predictions.correct).nonzero().flatten()
    if pair:
        true, predicted = parse_pair(pair, predictions.classes)
        wrong = wrong[(predictions.labels[wrong] == true) & (predictions.predicted[wrong] == predicted)]
    if order == "random":
        return random_subset(wrong, images, seed)
    return wrong[predictions.confidence[wrong].argsort(descending=True, stable=True)][:images]


def random_subset(indices: Tensor, size: int, seed: int) -> Tensor:
    """A seeded random subset of at most ``size`` indices."""
    return indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))][:size]


def parse_pair(pair: str, classes: tuple[str, ...]) -> tuple[int, int]:
    """``cat->dog`` as two class indices."""
    names = [name.strip() for name in pair.replace("→", "->").split("->")]
    if len(names) != 2 or not set(names) <= set(classes):
        known = listed(classes, 10)
        raise UserError(f"`gallery.pair` must be TRUE->PREDICTED, with two of the classes {known}; received {pair}")
    return classes.index(names[0]), classes.index(names[1])


def caption(predictions: Predictions, index: int) -> str:
    """Two lines: the true class, and the predicted class with its confidence."""
    labels = (predictions.labels[index], predictions.predicted[index])
    true, predicted = (one_line(predictions.classes[label]) for label in labels)
    return f"{true}\n→ {predicted} {percent(float(predictions.confidence[index]), 0)}"


def misclassified(predictions: Predictions, chosen: Tensor, requested: int, pair: str | None = None) -> Section:
    """Misclassified images with their true and predicted classes; see ``choose_misclassified``."""
    wrong = int((~predictions.correct).sum())
    limited = f" ({pair})" if pair else ""
    text = [f"{wrong:,} of {len(predictions.labels):,} images are misclassified."]
    if not requested:
        return Section("misclassified", "Misclassified images", missing=NO_IMAGES, text=text)
    if len(chosen) < requested:
        text.append(f"{requested} images{limited} were requested; there are {len(chosen)}.")
    figures = {}
    if len(chosen):
        pixels = predictions.data.images[chosen].numpy()
        captions = [caption(predictions, i) for i in chosen.tolist()]
        grid = image_grid(pixels, captions, columns=5, lines=2, classes=predictions.classes)
        figures["The true class, and below it the predicted class with its confidence."] = grid
    rows = [
        {
            "image": index,
            "true": predictions.classes[int(predictions.labels[index])],
            "predicted": predictions.classes[int(predictions.predicted[index])],
            "confidence": round(float(predictions.confidence[index]), 4),
        }
        for index in chosen.tolist()
    ]
    return Section("misclassified", f"Misclassified images{limited}", figures, numbers=rows, text=text)


def hardest_and_easiest(predictions: Predictions, each: int = 4) -> Section:
    """The images of each class with the lowest and the highest probability of the true class."""
    shown, which = set(range(len(predictions.classes))), "each class"
    if len(shown) > MOST_CLASSES:
        shown = set(predictions.class_accuracy.nan_to_num(2).argsort(stable=True)[:LOWEST].tolist())
        which = f"the {LOWEST} classes with the lowest accuracy"
    truth = predictions.probabilities.gather(1, predictions.labels[:, None]).flatten()
    pictures: dict[str, list[np.ndarray | None]] = {"hardest": [], "easiest": []}
    captions: dict[str, list[str]] = {"hardest": [], "easiest": []}
    numbers = []
    for label, name in enumerate(predictions.classes):
        members = (predictions.labels == label).nonzero().flatten()
        order = members[truth[members].argsort(stable=True)]
        picked = {"hardest": order[:each], "easiest": order.flip(0)[:each]}
        for kind, indices in picked.items():
            numbers += [{"class": name, "kind": kind, "image": int(i), "probability": float(truth[i])} for i in indices]
            if label in shown:
                fewer = each - len(indices)
                pictures[kind] += [*predictions.data.images[indices].numpy(), *[None] * fewer]
                captions[kind] += [f"{one_line(name)} {percent(float(truth[i]), 1)}" for i in indices] + [""] * fewer
    return Section(
        "hardest",
        "Hardest and easiest images",
        {
            f"The {each} {kind} images of {which}, with the probability of the true class.": image_grid(
                pictures[kind], captions[kind], columns=2 * each, classes=predictions.classes
            )
            for kind in pictures
        },
        numbers=numbers,
    )
