"""Galleries of images that tell something: the misclassified, and the hardest and easiest of each class."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.runtime.errors import UserError
from customresnet.runtime.pictures import image_grid

Order = Literal["confidence", "random"]


def choose_misclassified(
    outputs: Predictions, images: int = 20, order: Order = "confidence", pair: str | None = None, seed: int = 0
) -> Tensor:
    """Indices of misclassified images, fewer than asked for if there are not so many.

    Args:
        outputs: The network's answers.
        images: How many.
        order: The most confident first, or a random choice.
        pair: Only images of one class taken for another: ``cat->dog``.
        seed: Of the random choice.
    """
    wrong = (~outputs.correct).nonzero().flatten()
    if pair:
        true, predicted = parse_pair(pair, outputs.classes)
        wrong = wrong[(outputs.labels[wrong] == true) & (outputs.predicted[wrong] == predicted)]
    if order == "random":
        return some_of(wrong, images, seed)
    return wrong[outputs.confidence[wrong].argsort(descending=True, stable=True)][:images]


def some_of(indices: Tensor, number: int, seed: int) -> Tensor:
    """A seeded random choice of ``number`` indices, or all of them if there are not so many."""
    return indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))][:number]


def parse_pair(pair: str, classes: tuple[str, ...]) -> tuple[int, int]:
    """``cat->dog`` as two indices."""
    names = [name.strip() for name in pair.replace("→", "->").split("->")]
    if len(names) != 2 or not set(names) <= set(classes):
        raise UserError(f"--gallery.pair is TRUE->PREDICTED of {', '.join(classes)}; received {pair}")
    return classes.index(names[0]), classes.index(names[1])


def caption(outputs: Predictions, index: int) -> str:
    """Two lines: the true class, and the predicted one with its confidence."""
    true, predicted = (outputs.classes[int(labels[index])] for labels in (outputs.labels, outputs.predicted))
    return f"{true}\n→ {predicted} {float(outputs.confidence[index]):.0%}"


def misclassified(outputs: Predictions, chosen: Tensor, asked: int, pair: str | None = None) -> Section:
    """Misclassified images, each with its true class and what it was taken for.

    Args:
        outputs: The network's answers.
        chosen: Indices (see ``choose_misclassified``).
        asked: How many were asked for.
        pair: To what the choice was narrowed.
    """
    wrong = int((~outputs.correct).sum())
    of = f" of {pair}" if pair else ""
    text = [f"{wrong:,} of {len(outputs.labels):,} images are misclassified."]
    if not asked:
        return Section("misclassified", "Misclassified images", missing="--gallery.images is 0", text=text)
    if len(chosen) < asked:
        text.append(f"{len(chosen)}{of} can be shown where {asked} were asked for.")
    figures = {}
    if len(chosen):
        pixels = outputs.data.images[chosen].numpy()
        grid = image_grid(pixels, [caption(outputs, i) for i in chosen.tolist()], columns=5, lines=2)
        figures["True class, and below it the predicted class with its confidence."] = grid
    rows = [
        {
            "image": index,
            "true": outputs.classes[int(outputs.labels[index])],
            "predicted": outputs.classes[int(outputs.predicted[index])],
            "confidence": round(float(outputs.confidence[index]), 4),
        }
        for index in chosen.tolist()
    ]
    return Section("misclassified", f"Misclassified images{of}", figures, numbers=rows, text=text)


def hardest_and_easiest(outputs: Predictions, each: int = 4) -> Section:
    """Of each class the images to which the network gives least and most probability of being that class."""
    truth = outputs.probabilities.gather(1, outputs.labels[:, None]).flatten()
    pictures: dict[str, list[np.ndarray]] = {"hardest": [], "easiest": []}
    captions: dict[str, list[str]] = {"hardest": [], "easiest": []}
    numbers = []
    for label, name in enumerate(outputs.classes):
        mine = (outputs.labels == label).nonzero().flatten()
        order = mine[truth[mine].argsort(stable=True)]
        picked = {"hardest": order[:each], "easiest": order.flip(0)[:each]}
        for kind, indices in picked.items():
            blank = [np.zeros_like(outputs.data.images[0].numpy())] * (each - len(indices))
            pictures[kind] += [*outputs.data.images[indices].numpy(), *blank]
            captions[kind] += [f"{name} {float(truth[i]):.1%}" for i in indices] + [""] * len(blank)
            numbers += [{"class": name, "kind": kind, "image": int(i), "probability": float(truth[i])} for i in indices]
    columns = 2 * each
    return Section(
        "hardest",
        "Hardest and easiest images",
        {
            f"The {kind} {each} of each class, with the probability given to their true class.": image_grid(
                np.stack(pictures[kind]), captions[kind], columns
            )
            for kind in pictures
        },
        numbers=numbers,
    )
