"""One training step without Lightning, at the precision of ``fit``."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from customresnet.runtime.precision import autocast_type


def train_step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    """Run forward pass, backward pass and optimizer step."""
    reduced = autocast_type("cpu")
    with torch.autocast("cpu", reduced or torch.bfloat16, enabled=reduced is not None):
        loss = F.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
