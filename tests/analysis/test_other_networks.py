"""Networks that the package does not know: torchvision's, transformers, and networks without feature maps."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from customresnet.analysis.network.architecture import architecture, summary_text
from customresnet.analysis.network.gradcam import cam, find_layer
from customresnet.analysis.network.layers import profile
from customresnet.data.sources import load


class Linear(nn.Module):
    """No feature maps."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, num_classes)

    def forward(self, x):
        return self.head(x.flatten(1))


class DataDependent(nn.Module):
    """torch.fx cannot trace it, and it does not run on the meta device. Its ReLU is called twice."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(16, num_classes)

    def forward(self, x):
        x = self.relu(self.conv2(self.relu(self.conv1(x))))
        return self.head(x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3)))


def transformer(num_classes: int = 10) -> nn.Module:
    """A small vision transformer: 64 patches, width 48, 2 blocks."""
    return torchvision.models.VisionTransformer(32, 4, 2, 4, 48, 96, num_classes=num_classes)


NETWORKS: dict[str, tuple[Callable[..., nn.Module], str | None]] = {
    "resnet18": (torchvision.models.resnet18, "layer3"),  # layer4 has one unit
    "shufflenet_v2_x0_5": (torchvision.models.shufflenet_v2_x0_5, "stage3"),
    "mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, "features.8"),
    "vgg11": (torchvision.models.vgg11, "features.19"),  # upsampled by avgpool
    "regnet_y_400mf": (torchvision.models.regnet_y_400mf, "trunk_output.block3"),
    "transformer": (transformer, "conv_proj"),
    "data_dependent": (DataDependent, "conv2"),
    "linear": (Linear, None),
}
"""Networks, and the layer that Grad-CAM explains by default at 32 pixels."""


@pytest.fixture(scope="module", params=NETWORKS)
def named(request) -> tuple[str, nn.Module]:
    torch.manual_seed(0)
    return request.param, NETWORKS[request.param][0](num_classes=10).eval()


def test_layers_are_listed_with_shapes_parameters_and_flops(named):
    name, network = named
    found = profile(network, 32)
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def record(path, output):
        shapes.setdefault(path, []).append(tuple((output[0] if isinstance(output, tuple) else output).shape[1:]))

    hooks = [
        module.register_forward_hook(lambda _m, _i, output, path=path: record(path, output))
        for path, module in network.named_modules()
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    for layer in found.layers:
        assert layer.shape in shapes[layer.path]
        assert layer.parameters == sum(p.numel() for p in network.get_submodule(layer.path).parameters())
    assert found.totals["flops"] == sum(layer.flops for layer in found.layers)
    assert found.totals["parameters"] == sum(p.numel() for p in network.parameters())
    if name != "transformer":  # its class token and position embedding belong to no layer
        assert found.totals["parameters"] == sum(layer.parameters for layer in found.layers)


def test_flops_of_a_transformer():
    tokens, width = 65, 48
    block = 3 * width**2 + width**2 + 2 * tokens * width + 2 * width * 96  # of a token: qkv, projection, attention, MLP
    multiply_adds = 64 * width * 3 * 4 * 4 + 2 * tokens * block + width * 10
    assert profile(transformer()).totals["flops"] == 2 * multiply_adds
    large = torchvision.models.VisionTransformer(96, 12, 2, 4, 48, 96, num_classes=10)  # run on the meta device
    assert profile(large, 96).totals["flops"] == 2 * (multiply_adds + 64 * width * 3 * (12 * 12 - 4 * 4))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet18", ""),
        ("shufflenet_v2_x0_5", ""),
        ("mobilenet_v3_small", "there is no rule for how mul changes them"),  # squeeze-and-excitation
        ("transformer", "there is no rule for how reshape changes them"),
        ("data_dependent", "torch.fx cannot trace the network"),
    ],
)
def test_unknown_receptive_fields_are_marked_and_explained(name, reason):
    network = NETWORKS[name][0]()
    section, text = architecture(profile(network)), summary_text(profile(network))
    fields = [row["receptive field"] for row in section.table]
    assert (None in fields) == bool(reason)
    assert json.loads(json.dumps(section.numbers))["layers"][-1]["receptive_field"] == fields[-1]
    sentence = f"Receptive fields shown as - are unknown: {reason}"
    assert (sentence in section.text[-1]) == (sentence in text) == bool(reason)
    assert bool(re.search(r" -  -  -  -$", re.sub(" +", "  ", text), re.M)) == bool(reason)
    assert not section.figure.draw_without_rendering()


def test_gradcam_explains_the_last_stage_by_default(named):
    name, network = named
    layer = find_layer(network, None, 32)
    assert layer == NETWORKS[name][1]
    if layer:
        maps = cam(network, torch.randn(2, 3, 32, 32), torch.tensor([0, 1]), layer)
        assert maps.shape == (2, 32, 32)
        assert 0 <= maps.min() <= maps.max() <= 1


def checkpoint_of(network: nn.Module, class_path: str) -> dict:
    """A checkpoint as `fit` writes it, as far as the report reads it."""
    options = {"network": {"class_path": class_path, "init_args": {}}, "num_classes": 10, "width": None, "dropout": 0.0}
    options |= {"lr_max": 1e-2, "lr_min": 1e-3, "momentum": [0.85, 0.95], "weight_decay": 0.0, "optimizer": "sgd"}
    return {
        "hyper_parameters": options | {"policy": "one_cycle", "peak_epoch": 2, "anneal": "cos"},
        "preprocessing": {
            "classes": [str(digit) for digit in range(10)],
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
            "image_size": 32,
            "source": "digits",
        },
        "state_dict": {f"net.{name}": tensor for name, tensor in network.state_dict().items()},
        "epoch": 2,
        "global_step": 36,
    }


@pytest.mark.parametrize(
    ("name", "class_path"),
    [
        ("shufflenet_v2_x0_5", "torchvision.models.shufflenet_v2_x0_5"),
        ("transformer", f"{__name__}.transformer"),
        ("linear", f"{__name__}.Linear"),
    ],
)
def test_report(run, name, class_path):
    network = NETWORKS[name][0](num_classes=10).eval()
    torch.save(checkpoint_of(network, class_path), "net.ckpt")
    outcome = run("report", "--ckpt_path", "net.ckpt", "--output", "page", "--gallery.images", "3", "--trust")
    assert outcome.code == 0, outcome.err
    page, numbers = Path("page/index.html").read_text(), json.loads(Path("page/overview.json").read_text())
    images = load("digits", None, "test")
    inputs = (images.images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = (network(inputs).argmax(1) == images.labels).sum()
    assert numbers["correct"] == pytest.approx(int(expected), abs=3)  # the report may use bf16
    assert numbers["facts"]["network"] == class_path.rpartition(".")[2]
    assert numbers["facts"]["policy"] == "One Cycle, cosine, peak at epoch 2, no annihilation"
    assert numbers["facts"]["momentum"] == "momentum 0.95 to 0.85 and back"
    assert page.count("Not shown: no layer of the network returns a feature map (N, C, H, W)") == 2 * (name == "linear")
    if name != "linear":
        assert json.loads(Path("page/gradcam_right.json").read_text())["layer"] == NETWORKS[name][1]


def test_summary(run):
    outcome = run("summary", "--model.network", "torchvision.models.mobilenet_v3_small", "--model.num_classes", "7")
    assert outcome.code == 0, outcome.err
    assert re.search(r"Linear-141 +\[-1, 7\] +7,175 ", outcome.out)
    assert "Receptive fields shown as - are unknown: there is no rule for how mul changes them." in outcome.out
