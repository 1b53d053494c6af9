"""Grad-CAM on networks with evidence at a known position, and against plain autograd."""

import copy

import pytest
import torch
from torch import nn

from customresnet import CustomResNet
from customresnet.analysis.network import gradcam
from customresnet.analysis.network.gradcam import cam, find_layer
from customresnet.runtime.errors import UserError


class Brightness(nn.Module):
    """The logits are the mean brightness of the red and of the green channel."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(inplace=True))
        with torch.no_grad():
            self.features[1].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[..., None, None])

    def forward(self, x):
        return self.features(x).mean(dim=(2, 3))


@pytest.mark.parametrize("quadrant", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_evidence_in_one_quadrant_is_shown_in_that_quadrant(quadrant):
    top, left = (16 * place for place in quadrant)
    image = torch.zeros(1, 3, 32, 32)
    image[0, 0, top : top + 16, left : left + 16] = 1  # red here
    image[0, 1] = 1 - image[0, 0]  # green elsewhere
    red, green = cam(Brightness(), image.repeat(2, 1, 1, 1), torch.tensor([0, 1]), "features")
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[top : top + 16, left : left + 16] = True
    assert red.max() == green.max() == 1
    assert red[inside].mean() > 0.9 > 10 * red[~inside].mean()
    assert green[~inside].mean() > 0.9 > 10 * green[inside].mean()


@pytest.mark.parametrize("layer", ["layer3", "layer1", "layer2.0", "layer2.2", "layer3.4.body.0"])
def test_maps_equal_those_of_plain_autograd(layer):
    torch.manual_seed(0)
    network = CustomResNet(width=8).eval()
    nn.init.normal_(network.head.weight)  # initially zero, which gives no evidence
    images, targets = torch.randn(4, 3, 32, 32), torch.tensor([3, 1, 4, 1])
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    kept = []
    plain.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output))
    scores = plain(images)[range(4), targets].sum()
    (gradient,) = torch.autograd.grad(scores, kept[0])
    maps = (gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1, keepdim=True).relu()
    maps = nn.functional.interpolate(maps, (32, 32), mode="bilinear")[:, 0]
    expected = maps / maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    assert expected.max() == 1
    assert torch.allclose(cam(network, images, targets, layer), expected.detach(), atol=1e-5)


def test_the_network_is_not_changed():
    network = CustomResNet(width=4).train()
    before = copy.deepcopy(network.state_dict())
    cam(network, torch.randn(2, 3, 32, 32), torch.tensor([0, 1]), "layer3")
    assert network.training
    assert network.prep[2].inplace
    assert all(torch.equal(a, b) for a, b in zip(before.values(), network.state_dict().values(), strict=True))
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("image_size", [32, 64, 96])
def test_default_layer_is_the_last_stage_before_the_pooling(image_size):
    assert find_layer(CustomResNet(width=4), None, image_size) == "layer3"
    assert find_layer(Brightness(), None, image_size) == "features"


def test_many_images_are_explained_in_batches(monkeypatch):
    network, images, targets = Brightness(), torch.rand(5, 3, 32, 32), torch.tensor([0, 1, 0, 1, 0])
    whole = cam(network, images, targets, "features")
    monkeypatch.setattr(gradcam, "BATCH", 2)
    assert torch.equal(cam(network, images, targets, "features"), whole)


@pytest.mark.parametrize("name", ["nope", "head", "pool"])  # the last two return no map
def test_an_unknown_layer_is_refused_with_a_list(name):
    with pytest.raises(UserError, match=f"`gallery.layer` {name}: .*layers: prep.0, .*layer3.4, layer3"):
        find_layer(CustomResNet(width=4), name, 32)
