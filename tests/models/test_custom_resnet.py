import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from customresnet import CustomResNet


def test_it_has_the_parameters_of_the_assignment():
    assert sum(p.numel() for p in CustomResNet().parameters()) == 6_573_130


def test_its_leaf_modules_are_the_29_rows_of_the_assignments_table():
    rows = [m for m in CustomResNet().modules() if not list(m.children())]
    counts = [sum(p.numel() for p in m.parameters()) for m in rows]
    assert len(rows) == 29
    assert [type(m).__name__ for m in rows[3:7]] == ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"]
    assert (counts[0], counts[-1]) == (1_728, 5_130)
    assert all(m.bias is None for m in rows if isinstance(m, nn.Conv2d))


def test_shapes_stage_by_stage():
    network, x = CustomResNet(width=8).eval(), torch.randn(2, 3, 32, 32)
    shapes = []
    for stage in (network.prep, network.layer1, network.layer2, network.layer3, network.pool):
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4), (64, 1, 1)]


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_an_untrained_network_predicts_uniformly(classes):
    logits = CustomResNet(classes, width=8)(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, classes)
    loss = F.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
    assert loss.item() == pytest.approx(math.log(classes), rel=1e-6)


def test_it_returns_logits_and_adds_each_residual_once():
    """Compare the network, at width 4, with its arithmetic written out."""
    torch.manual_seed(0)
    network = CustomResNet(width=4).eval()
    nn.init.normal_(network.head.weight)

    def conv_bn(x, conv, norm, pool=False):
        x = F.conv2d(x, conv.weight, padding=1)
        x = F.max_pool2d(x, 2) if pool else x
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return F.relu((x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None])

    for module in network.modules():  # statistics other than 0 and 1
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    x = images = torch.randn(3, 3, 40, 40)[:, :, 4:36, 4:36]
    x = conv_bn(x, network.prep[0], network.prep[1])
    for layer in (network.layer1, network.layer2, network.layer3):
        x = conv_bn(x, layer[0], layer[2], pool=True)
        if len(layer) == 5:
            body = layer[4].body
            x = x + conv_bn(conv_bn(x, body[0], body[1]), body[3], body[4])
    expected = F.linear(F.max_pool2d(x, 4).flatten(1), network.head.weight, network.head.bias)
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


def test_dropout_follows_each_relu_of_layers_1_to_3_or_is_absent():
    assert not any(isinstance(m, nn.Dropout) for m in CustomResNet(width=4).modules())
    network = CustomResNet(width=4, dropout=0.1)
    drops = [name for name, m in network.named_modules() if isinstance(m, nn.Dropout)]
    assert len(drops) == 7  # one in each of three layers, two in each of two residual blocks
    assert not any(name.startswith("prep") for name in drops)


def test_larger_images_are_pooled_to_one_vector():
    assert CustomResNet(width=4)(torch.randn(1, 3, 64, 64)).shape == (1, 10)
