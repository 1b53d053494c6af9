"""The two small networks: their sizes, their shapes, and the layers of the report's network."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from customresnet.analysis.network.layers import profile
from customresnet.models import NETWORKS, AdvancedNet, AdvancedNetOriginal, build_network, default_width
from customresnet.runtime.errors import UserError


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_reports_network_has_its_parameters_and_multiply_adds():
    network = AdvancedNetOriginal(dropout=0.01)
    assert parameters(network) == 97_284
    assert sum(layer.flops for layer in profile(network).layers) / 2 == pytest.approx(26.4e6, rel=2e-3)
    channels = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert channels == [32, 64, 32, 32, 32, 64, 32, 64, 64, 16, 32, 32, 10]
    assert sum(isinstance(m, nn.Dropout2d) for m in network.modules()) == 8


def test_the_reports_network_ends_in_relu_norm_and_dropout():
    *_, relu, norm, dropout = AdvancedNetOriginal(dropout=0.01).block4
    assert (type(relu), type(norm), type(dropout)) == (nn.ReLU, nn.BatchNorm2d, nn.Dropout2d)
    network = AdvancedNetOriginal().eval()  # its norm is still the identity, so no logit is below zero
    assert network(torch.randn(16, 3, 32, 32)).min() >= 0


def test_the_shapes_of_the_reports_network_stage_by_stage():
    network, x = AdvancedNetOriginal().eval(), torch.randn(2, 3, 32, 32)
    shapes = []
    for stage in (network.block1, network.block2, network.block3, network.block4, network.pool):
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(32, 16, 16), (32, 9, 9), (16, 4, 4), (10, 6, 6), (10, 1, 1)]


def test_the_redesign_meets_the_parameter_limit_with_the_same_layer_types():
    network = AdvancedNet()
    assert parameters(network) < 100_000
    assert sum(layer.flops for layer in profile(network).layers) / 2 < 26.4e6
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.groups == m.in_channels > 1 for m in convolutions) >= 2
    assert sum(m.dilation == (2, 2) for m in convolutions) >= 1
    strided = [m for m in convolutions if m.stride == (2, 2)]
    assert strided
    assert all((m.kernel_size, m.padding) == ((1, 1), (0, 0)) for m in strided)
    assert any(isinstance(m, nn.AdaptiveAvgPool2d) for m in network.modules())
    last = list(network.modules())[-1]
    assert isinstance(last, nn.Linear)  # nothing follows the logits


def test_the_shapes_of_the_redesign_stage_by_stage():
    network, x = AdvancedNet(width=8).eval(), torch.randn(2, 3, 32, 32)
    shapes = []
    for stage in (network.stem, network.stage1, network.stage2, network.stage3):
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(8, 32, 32), (8, 32, 32), (16, 16, 16), (24, 8, 8)]


def test_an_untrained_redesign_predicts_uniformly_and_its_blocks_are_identities():
    network = AdvancedNet(7, width=8)
    logits = network(torch.randn(4, 3, 32, 32))
    assert F.cross_entropy(logits, torch.zeros(4, dtype=torch.long)).item() == pytest.approx(math.log(7), rel=1e-6)
    features = network.stem(torch.randn(4, 3, 32, 32))
    assert torch.equal(network.stage1(features), features)  # relu(x + 0), x without negative values


@pytest.mark.parametrize("name", ["advanced_net", "advanced_net_original"])
def test_every_parameter_learns(name):
    network = build_network(name, num_classes=5, width=8)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    images, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 5
    before = [p.detach().clone() for p in network.parameters()]
    for _ in range(6):  # gradients need a few steps to pass weights that start at zero
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    for (path, parameter), old in zip(network.named_parameters(), before, strict=True):
        assert not torch.equal(parameter, old), path


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [32, 64])
def test_every_network_accepts_larger_images_and_any_number_of_classes(name, size):
    network = build_network(name, num_classes=7, width=8, dropout=0.1)
    assert network(torch.randn(2, 3, size, size)).shape == (2, 7)
    assert any(isinstance(m, (nn.Dropout, nn.Dropout2d)) for m in network.modules())
    plain = build_network(name, width=8)
    assert not any(isinstance(m, (nn.Dropout, nn.Dropout2d)) for m in plain.modules())


def test_each_network_has_its_default_width():
    assert {name: default_width(name) for name in NETWORKS} == {
        "custom_resnet": 64,
        "advanced_net": 32,
        "advanced_net_original": 32,
    }
    assert parameters(build_network("custom_resnet")) == 6_573_130


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "`width` must be at least 1; received 0"),
        ({"dropout": 1.0}, "`dropout` must be at least 0 and below 1; received 1.0"),
        ({"num_classes": 1}, "`num_classes` must be at least 2; received 1"),
    ],
)
def test_errors_name_the_parameter(options, message):
    with pytest.raises(UserError, match=message):
        build_network("advanced_net", **options)
