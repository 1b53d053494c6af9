"""Test-time augmentation by mirroring."""

import torch

from customresnet import CustomResNet
from customresnet.models.tta import flip_tta


def test_the_logits_are_the_mean_over_images_and_mirror_images() -> None:
    torch.manual_seed(0)
    network = CustomResNet(width=4).eval()
    torch.nn.init.normal_(network.head.weight)
    images = torch.randn(3, 3, 32, 32)
    mirrored = images[:, :, :, torch.arange(31, -1, -1)]
    with torch.no_grad():
        plain, expected = network(images), (network(images) + network(mirrored)) / 2
        with flip_tta(network):
            torch.testing.assert_close(network(images), expected)
            torch.testing.assert_close(network(mirrored), expected)
        torch.testing.assert_close(network(images), plain)
        with flip_tta(network, enabled=False):
            torch.testing.assert_close(network(images), plain)
