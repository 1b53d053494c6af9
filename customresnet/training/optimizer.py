"""The optimizer of a classifier."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


def build_optimizer(net: nn.Module, options: Mapping[str, Any], lr: float, *, fused: bool = False) -> Optimizer:
    """Adam or SGD for a network's parameters; ``options`` are those of ImageClassifier.

    Decoupled weight decay shrinks the weights of convolutions and linear layers. Biases and normalization scales keep
    none: https://arxiv.org/abs/1812.01187, section 3.1.
    """
    weight_decay = options["weight_decay"]
    if options["optimizer"] == "sgd":
        return torch.optim.SGD(net.parameters(), lr, momentum=0.9, weight_decay=weight_decay, fused=fused)
    adam: dict[str, Any] = {"lr": lr, "betas": (0.9, options["beta2"]), "fused": fused}
    if not (options["decoupled"] and weight_decay):
        return torch.optim.Adam(net.parameters(), weight_decay=weight_decay, **adam)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    weights = {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay}
    others = {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}
    return torch.optim.AdamW([group for group in (weights, others) if group["params"]], **adam)
