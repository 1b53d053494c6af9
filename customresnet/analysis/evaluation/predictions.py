"""Where the test images of a run are, and a network's predictions for them, in one pass for all sections."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from customresnet.data import sources
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.sources import SourceName
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runtime.precision import autocast_type, device_kind
from customresnet.runtime.screen import interactive

BATCH = 500
UNBALANCED = 1.25
"""Classes are unbalanced if the largest has more than this many times the images of the smallest."""


@dataclass(frozen=True)
class DataOptions:
    """The test images.

    Args:
        source: Where they come from. Default: the run's source.
        root: Their folder or .zip. Default: the run's.
        test_share: For a folder without test images, the fraction of each class's images to test on. Default: the
            run's.
    """

    source: SourceName | None = None
    root: Path | None = None
    test_share: float | None = None

    def of_run(self, prep: Preprocessing, config: dict[str, Any]) -> "DataOptions":
        """Where a run's test images are. ``config`` is the run's config.yaml, or empty."""
        source: Any = self.source or prep.source
        if self.root or "data" not in config or source != prep.source:
            return DataOptions(source, self.root, self.test_share)
        root, share = config["data"].get("root"), config["data"].get("test_share")
        return DataOptions(source, Path(root) if root else None, self.test_share or share)

    def load(self, image_size: int) -> LabelledImages:
        """Read the test images, after downloading them if necessary."""
        source = self.source or "cifar10"
        sources.download(source, self.root)
        share = () if self.test_share is None else (self.test_share,)
        return sources.load(source, self.root, "test", image_size, *share)


@dataclass(frozen=True)
class Predictions:
    """Class probabilities ``(N, classes)`` float32 on the CPU, for labeled images before normalization."""

    data: LabelledImages
    probabilities: Tensor

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    @property
    def labels(self) -> Tensor:
        """``(N,)`` int64."""
        return self.data.labels

    @property
    def predicted(self) -> Tensor:
        """``(N,)`` int64: the most probable class."""
        return self.probabilities.argmax(dim=1)

    @property
    def confidence(self) -> Tensor:
        """``(N,)``: the probability of the predicted class."""
        return self.probabilities.max(dim=1).values

    @property
    def correct(self) -> Tensor:
        """``(N,)`` bool."""
        return self.predicted == self.labels

    @property
    def class_sizes(self) -> Tensor:
        """``(classes,)`` int64: the number of images of each class."""
        return torch.bincount(self.labels, minlength=len(self.classes))

    @property
    def class_accuracy(self) -> Tensor:
        """``(classes,)`` float64; NaN for a class without images."""
        return torch.bincount(self.labels, self.correct.double(), len(self.classes)) / self.class_sizes

    @property
    def macro_accuracy(self) -> float:
        """The mean of the classes' accuracies."""
        return float(self.class_accuracy.nanmean())

    @property
    def majority_accuracy(self) -> float:
        """The accuracy of always predicting the largest class."""
        return int(self.class_sizes.max()) / len(self.labels)

    @property
    def is_unbalanced(self) -> bool:
        return bool(self.class_sizes.max() > UNBALANCED * self.class_sizes.min())


def predict(network: nn.Module, data: LabelledImages, prep: Preprocessing) -> Predictions:
    """Run a network over all images, on the GPU if there is one, at the default precision of training."""
    from tqdm import tqdm

    device = torch.device(device_kind("auto"))
    transform, reduced = prep.transforms(), autocast_type(device.type)
    network = network.to(device).eval()
    parts = []
    batches = data.images.split(BATCH)
    with torch.inference_mode():
        for images in tqdm(batches, "test images", leave=False, unit="batch", disable=not interactive()):
            with torch.autocast(device.type, reduced) if reduced else nullcontext():
                logits = network(transform(images, seed=0).to(device))
            parts.append(logits.float().softmax(dim=1).cpu())
    network.to("cpu")
    return Predictions(data, torch.cat(parts))
