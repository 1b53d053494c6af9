"""The mean loss over images."""

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanLoss(Metric):
    """The mean of batches' mean losses, each weighted by its images.

    torchmetrics' own MeanMetric leaves NaN out, so that a run that diverged looks healthy, and reads each loss off the
    device to see whether it is one.
    """

    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        """Count a batch of so many images, whose mean loss is a Tensor ``()``."""
        self.total += loss * images
        self.images += images

    def compute(self) -> Tensor:
        return self.total / self.images
