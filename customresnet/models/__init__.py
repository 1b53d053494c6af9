"""Plain networks: images ``(N, 3, H, W)`` to logits ``(N, num_classes)``. No Lightning here."""

from customresnet.models.custom_resnet import CustomResNet

NETWORKS = {"custom_resnet": CustomResNet}
"""Every network by the name that ``--model.network`` takes."""

__all__ = ["NETWORKS", "CustomResNet"]
