"""Networks: plain nn.Modules that map images ``(N, 3, H, W)`` to logits ``(N, num_classes)``, without Lightning."""

from customresnet.models.advanced_net import AdvancedNet
from customresnet.models.advanced_net_original import AdvancedNetOriginal
from customresnet.models.build import NETWORKS, NetworkSpec, build_network, check_network, network_name, network_spec
from customresnet.models.custom_resnet import CustomResNet

__all__ = [
    "NETWORKS",
    "AdvancedNet",
    "AdvancedNetOriginal",
    "CustomResNet",
    "NetworkSpec",
    "build_network",
    "check_network",
    "network_name",
    "network_spec",
]
