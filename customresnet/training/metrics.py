"""Loss and accuracy over images."""

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy


def stage_metrics(num_classes: int) -> nn.ModuleDict:
    """``loss`` and ``acc`` of each stage, whose name has an underscore behind: "train" is a method of every module."""
    return nn.ModuleDict(
        {
            stage: nn.ModuleDict({"loss": MeanLoss(), "acc": MulticlassAccuracy(num_classes, average="micro")})
            for stage in ("train_", "val_", "test_")
        }
    )


class MeanLoss(Metric):
    """The mean of batches' mean losses, each weighted by its images.

    torchmetrics' MeanMetric ignores NaN, which hides that a run diverged, and reads every loss from the device to
    check for it.
    """

    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        """Add a batch of ``images`` images with the mean loss ``()``."""
        self.total += loss * images
        self.images += images

    def compute(self) -> Tensor:
        return self.total / self.images


def reset(metrics: nn.Module) -> None:
    """Reset all metrics in a module."""
    for metric in metrics.modules():
        if isinstance(metric, Metric):
            metric.reset()
