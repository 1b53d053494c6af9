"""The layers of networks against known values and independent counts, and receptive fields against gradients."""

import copy
import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from customresnet import CustomResNet
from customresnet.analysis.network.architecture import architecture, summary_text
from customresnet.analysis.network.layers import profile
from customresnet.analysis.network.receptive_field import receptive_fields
from customresnet.commands.summary import NetworkOptions, summary
from customresnet.models import AdvancedNet, AdvancedNetOriginal
from customresnet.runtime.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


class Tiny(nn.Module):
    """Small enough to check by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)  # 4*3*9 + 4 = 112 parameters
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 10)  # 50
        self.conv.requires_grad_(False)

    def forward(self, x):
        return self.head(self.pool(F.relu(self.conv(x))).flatten(1))


class Square(nn.Module):
    """A custom module without children."""

    def forward(self, x):
        return F.avg_pool2d(x * x, 3, stride=1, padding=1)


class Many(nn.Module):
    """Every kind of layer that convolutional networks commonly use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.separable = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 6, 1), nn.GELU())
        self.strided = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(6, 8, 1, stride=2)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.unpadded = nn.Conv2d(8, 8, 3, dilation=3)
        self.even = nn.Conv2d(8, 8, 4, padding="same")
        self.wide = nn.Conv2d(8, 4, 5, padding=2)
        self.narrow = nn.Conv2d(8, 4, 1)
        self.drop = nn.Dropout2d(0.5)
        self.square = Square()
        self.down = nn.Conv2d(8, 8, 1, stride=2)
        self.average = nn.AvgPool2d(3, stride=2, padding=1)
        self.halved = nn.AdaptiveAvgPool2d(3)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.separable(self.stem(x))
        x = F.relu(self.strided(x)) + self.shortcut(x)
        x = x + self.dilated(x)
        x = self.even(self.unpadded(x))
        x = torch.cat([self.wide(x), self.narrow(x)], dim=1)
        x = self.square(self.drop(x))
        x = self.average(self.down(x))
        x = self.halved(x)
        return self.head(x.mean(dim=[-2, -1]).view(x.size(0), -1))


class Shuffled(nn.Module):
    """A block of ShuffleNet: half of the channels are convolved, then all are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(4, 4, 5, padding=2)
        self.norm, self.last, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, stride=2, padding=1), nn.Linear(4, 5)

    def forward(self, x):
        kept, x = self.stem(x).chunk(2, dim=1)
        x = torch.cat([kept, self.branch(x)], dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.head(self.last(self.norm(x)).mean((2, 3)))


MANY_SIZE = 204
"""With this size, the map before the adaptive pooling has 24 units a side."""


# ------------------------------------------------------------------------------------------------------------- counts


def test_custom_resnet_has_the_known_layers():
    layers = profile(CustomResNet()).layers
    names = [layer.name for layer in layers]
    assert len(layers) == 29
    assert names[:5] == ["Conv2d-1", "BatchNorm2d-2", "ReLU-3", "Conv2d-4", "MaxPool2d-5"]
    assert names[-2:] == ["MaxPool2d-28", "Linear-29"]
    assert (layers[0].parameters, layers[1].parameters, layers[2].parameters, layers[-1].parameters) == (
        1728,
        128,
        0,
        5130,
    )
    assert (layers[0].shape, layers[4].shape, layers[-1].shape) == ((64, 32, 32), (128, 16, 16), (10,))
    assert layers[7].path == "layer1.4.body.0"
    by_name = {layer.name: layer.receptive_field for layer in layers}
    assert (by_name["Conv2d-1"], by_name["ReLU-27"], by_name["MaxPool2d-28"], by_name["Linear-29"]) == (3, 64, 88, 88)


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (CustomResNet(width=8), 32),
        (CustomResNet(width=4), 64),
        (AdvancedNet(), 32),
        (AdvancedNetOriginal(), 32),
        (Many(), MANY_SIZE),
    ],
)
def test_totals_equal_torchs_counts(network, size):
    found = profile(network, size)
    total, layers = found.totals, found.layers
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(network).eval()(torch.zeros(1, 3, size, size))
    assert total["flops"] == 2 * total["multiply_adds"] == counter.get_total_flops() == sum(x.flops for x in layers)
    assert total["parameters"] == sum(p.numel() for p in network.parameters()) == sum(x.parameters for x in layers)


def test_closing_lines_follow_torchsummary():
    """By hand: 112 + 50 parameters; outputs 4*64*64, 4 and 10; an input of 3*64*64; 4 bytes each, the outputs twice."""
    *_, closing = summary_text(profile(Tiny(), 64)).split("=\n")
    multiply_adds = 64 * 64 * 4 * 27 + 4 * 10
    assert re.sub("-+\n?", "", closing).splitlines() == [
        "Total params: 162",
        "Trainable params: 50",
        "Nontrainable params: 112",  # the dash was removed with the rules
        f"Multiplyadds: {multiply_adds:,} (FLOPs: {2 * multiply_adds:,}), for one image",
        "Input size (MB): 0.05",
        "Forward/backward pass size (MB): 0.13",
        "Params size (MB): 0.00",
        "Estimated Total Size (MB): 0.17",
    ]
    total = profile(Tiny(), 64).totals
    assert total["input_mb"] == 4 * 3 * 64 * 64 / 2**20
    assert total["forward_backward_mb"] == 2 * 4 * (4 * 64 * 64 + 4 + 10) / 2**20
    assert total["parameters_mb"] == 4 * 162 / 2**20


def test_printed_rows_fit_a_terminal():
    lines = summary_text(profile(CustomResNet())).splitlines()
    assert max(map(len, lines)) <= 110
    assert re.split(r"\s{2,}", lines[3].strip()) == [
        *("Conv2d-1", "[-1, 64, 32, 32]", "1,728", "3.54", "3", "1", "0.5", "1")
    ]
    assert re.split(r"\s{2,}", lines[7].strip()) == [
        *("MaxPool2d-5", "[-1, 128, 16, 16]", "0", "0.00", "6", "2", "1", "2")
    ]


# --------------------------------------------------------------------------------------------------- receptive fields


def positive(network: nn.Module) -> nn.Module:
    """A copy without norms and maxima whose weights are all 1, so that no gradient is zero by chance."""
    copied = copy.deepcopy(network).eval()
    for path, module in list(copied.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            copied.set_submodule(path, nn.Identity())
        elif isinstance(module, nn.MaxPool2d):
            copied.set_submodule(path, nn.AvgPool2d(module.kernel_size, module.stride, module.padding))
    for parameter in copied.parameters():
        nn.init.ones_(parameter)
    return copied


def outputs_by_path(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    outputs: dict[str, torch.Tensor] = {}
    for path, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _m, _i, out, path=path: outputs.__setitem__(path, out.clone()))
    network(images)
    return outputs


@pytest.fixture
def one_thread():
    """Small backward passes are slower on several threads, especially on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def extents(output: torch.Tensor, images: torch.Tensor, unit: int) -> list[tuple[int, int]]:
    """The range of pixels, vertically and horizontally, with a gradient from a unit on the diagonal."""
    (gradient,) = torch.autograd.grad(output[0, :, unit, unit].sum(), images, retain_graph=True)
    seen = gradient[0].abs().sum(dim=0) > 0
    lines = [seen.any(dim=side).nonzero().flatten() for side in (1, 0)]
    return [(int(line[0]), int(line[-1]) + 1) for line in lines]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("network", "size", "checked"),
    [
        (CustomResNet(width=1), 192, 28),
        (AdvancedNet(width=1), 192, 65),
        (AdvancedNetOriginal(width=2), 192, 32),
        (Many(), MANY_SIZE, 18),
        (Shuffled(), 32, 4),
    ],
    ids=["custom_resnet", "advanced_net", "advanced_net_original", "many", "shuffled"],
)
def test_fields_equal_the_extents_of_gradients(network, size, checked):
    torch.manual_seed(0)
    images = torch.rand(1, 3, size, size, requires_grad=True)
    outputs = outputs_by_path(positive(network), images)
    maps = [layer for layer in profile(network, size).layers if len(layer.shape) == 3 and layer.shape[-1] > 1]
    assert len(maps) == checked
    for layer in maps:
        output, half = outputs[layer.path], layer.receptive_field / 2
        assert tuple(output.shape[1:]) == layer.shape
        middle = layer.shape[-1] // 2
        # its padded 1x1 convolutions add a border of zeros, which sees nothing
        corner = () if isinstance(network, AdvancedNetOriginal) else (0,)
        for unit in (*corner, middle, middle + 1):
            centre = layer.start + unit * layer.jump
            begin, end = int(centre - half), int(centre + half)
            assert begin == unit * layer.jump - layer.padding
            if unit == middle and layer.path != "halved":
                assert (begin >= 0, end <= size) == (True, True), layer
            assert extents(output, images, unit) == [(max(begin, 0), min(end, size))] * 2, (layer, unit)


@pytest.mark.parametrize("pool", ["adaptive", "mean", "amax", "flatten"])
def test_a_global_pooling_spans_the_map(pool):
    """Without padding: 15 units of 3 pixels, 2 apart, see 31 of 32 pixels."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2)
            self.head = nn.Linear(4 * 225 if pool == "flatten" else 4, 2)

        def forward(self, x):
            x = self.conv(x)
            if pool == "adaptive":
                x = F.adaptive_avg_pool2d(x, 1)
            elif pool == "mean":
                x = torch.mean(x, (2, 3))
            elif pool == "amax":
                x = x.amax(dim=(-1, -2), keepdim=True)
            return self.head(torch.flatten(x, 1))

    fields = receptive_fields(Pooled(), 32)
    logits = fields.logits
    assert [field.size for calls in fields.layers.values() for field in calls] == [3, 31]
    assert (logits.size, logits.start, logits.units) == (31, 15.5, 1)
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    if pool != "amax":  # whose gradient goes to one unit only
        positive(Pooled())(images)[0, 0].backward()
        assert images.grad[0, 0].any(dim=0).nonzero().flatten().tolist() == list(range(31))


def test_logits_see_all_of_a_map_that_is_pooled_twice():
    layers = profile(CustomResNet(width=4), 64).layers  # the last pooling leaves 2 x 2 units, 32 pixels apart
    assert [layer.receptive_field for layer in layers[-3:]] == [64, 88, 88 + 32]


# --------------------------------------------------------------------------------------------------------- the network


def test_the_network_is_not_changed():
    network = CustomResNet(width=4, dropout=0.1).half()
    network.layer2.eval()
    network.compile()
    calls: list[nn.Module] = []
    for module in network.modules():
        module.register_forward_hook(lambda m, _i, _o: calls.append(m))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    hooks = [len(module._forward_hooks) for module in network.modules()]
    compiled = network._compiled_call_impl
    random = torch.get_rng_state()
    profile(network, 32)
    profile(network, 96)  # on the meta device
    assert calls == []
    assert modes == [module.training for module in network.modules()]
    assert hooks == [len(module._forward_hooks) for module in network.modules()]
    assert network._compiled_call_impl is compiled is not None
    assert torch.equal(random, torch.get_rng_state())
    for name, value in network.state_dict().items():
        assert value.device.type == "cpu"
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name])


class Through(nn.Module):
    """A network with one operation on its map."""

    def __init__(self, operation) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.operation = operation
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.operation(self.conv(x)).amax(dim=(2, 3)))


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (lambda x: x.roll(1, 2), "roll"),
        (lambda x: x[:, :, 1:], "getitem"),
        (lambda x: F.interpolate(x, scale_factor=2), "interpolate"),
        (lambda x: x.max(dim=2, keepdim=True)[0], "max"),
        (lambda x: x.mean(dim=(1, 2), keepdim=True).expand_as(x), "mean"),
        (lambda x: torch.cat([x, x], dim=2), "cat"),
        (lambda x: x * F.adaptive_avg_pool2d(x, 1), "mul"),
        (nn.Upsample(scale_factor=2), "operation, Upsample"),
        (nn.Conv2d(4, 4, (1, 3)), "operation, Conv2d"),
        (nn.AdaptiveAvgPool2d(5), "operation, AdaptiveAvgPool2d"),
        (lambda x: x.transpose(2, 3), "transpose"),
        (lambda x: x.chunk(2, dim=2)[0], "chunk"),
        (lambda x: x.view(x.size(0), 4, 8, -1), "view"),
        (lambda x: x if x.sum() > 0 else -x, "torch.fx cannot trace the network"),
    ],
)
def test_fields_are_unknown_from_the_first_operation_without_a_rule(operation, reason):
    found = profile(Through(operation))
    traced = "cannot trace" not in reason
    assert reason in found.unknown
    assert "\n" not in found.unknown
    assert found.logits is None
    assert [layer.shape for layer in (found.layers[0], found.layers[-1])] == [(4, 32, 32), (2,)]
    assert (found.layers[0].receptive_field, found.layers[-1].receptive_field) == (3 if traced else None, None)
    total = found.totals
    assert total["parameters"] == sum(layer.parameters for layer in found.layers)
    assert total["flops"] == sum(layer.flops for layer in found.layers) > 0


def test_a_network_that_needs_values_is_profiled_at_any_size():
    network = Through(lambda x: x if x.sum() > 0 else -x)
    assert [layer.shape for layer in profile(network, 96).layers] == [(4, 96, 96), (2,)]


def test_logits_that_do_not_depend_on_the_image_have_no_field():
    class Blind(nn.Linear):
        def forward(self, x):
            return self.weight

    assert receptive_fields(Blind(3, 2), 32).unknown == "the output does not depend on the image"


def test_fields_after_a_view_that_mixes_images_are_unknown():
    class Mixing(nn.Conv2d):
        def forward(self, x):
            return x.amax(dim=(2, 3)).view(-1, 1)

    assert "view" in receptive_fields(Mixing(3, 4, 1), 32).unknown


def test_images_too_small_for_the_network_are_an_error():
    with pytest.raises(UserError, match="`image_size` 16") as caught:
        profile(CustomResNet(width=4), 16)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------- the section, the command


def test_the_section_shows_the_layers():
    section = architecture(profile(CustomResNet()))
    numbers = json.loads(json.dumps(section.numbers))
    assert [row["layer"] for row in section.table] == [layer["name"] for layer in numbers["layers"]]
    assert numbers["totals"]["parameters"] == 6_573_130
    text = " ".join(section.text)
    for words in (
        "6,573,130 parameters",
        "758.5 MFLOPs",
        "512 x 4 x 4",
        "64 pixels a side",
        "88 pixels a side: the whole",
    ):
        assert words in text
    above, below = section.figure.axes
    fields, line = above.get_lines()
    assert list(fields.get_ydata()) == [layer["receptive_field"] for layer in numbers["layers"]]
    assert set(line.get_ydata()) == {32}
    parameters, flops = ([bar.get_height() for bar in bars] for bars in below.containers)
    assert parameters[21] == pytest.approx(2_359_296 / 6_573_130)
    assert sum(flops) == pytest.approx(1)
    assert not any(axes.get_legend().get_frame_on() for axes in section.figure.axes)


def test_a_shortcut_in_the_last_row_does_not_hide_the_larger_field():
    class ShortcutLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.shortcut, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 1, 2), nn.Linear(4, 2)

        def forward(self, x):
            return self.head((self.body(x) + self.shortcut(x)).mean((2, 3)))

    section = architecture(profile(ShortcutLast()))
    assert [row["receptive field"] for row in section.table] == [3, 1, 3 + 15 * 2]
    assert "grows to 3 pixels a side" in section.text[1]


def test_a_logit_that_sees_part_of_the_image():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert architecture(profile(network)).text[-1].endswith("31 pixels a side: 31 of the image's 32.")


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    summary(NetworkOptions(width=8, num_classes=7))
    printed = capsys.readouterr().out
    assert "Linear-29" in printed
    assert "written" not in printed
    summary(NetworkOptions(width=8, num_classes=7), image_size=64, output=tmp_path / "a" / "b")
    assert "summary.json and architecture.png" in capsys.readouterr().out
    written = json.loads((tmp_path / "a" / "b" / "summary.json").read_text())
    assert (written["image_size"], written["layers"][-1]["shape"]) == (64, [7])
    assert (tmp_path / "a" / "b" / "architecture.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"`output` {tmp_path}"):
        summary(NetworkOptions(width=1), output=tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "size", "said"),
    [
        ({"width": 0}, 32, "`width` must be at least 1; received 0"),
        ({"dropout": 1.0}, 32, "`dropout` must be .* below 1; received 1.0"),
        ({"dropout": float("nan")}, 32, "`dropout` .* received nan"),
        ({"num_classes": 1}, 32, "`num_classes` must be at least 2; received 1"),
        ({}, 31, "`image_size` must be at least 32; received 31"),
    ],
)
def test_wrong_options_are_refused(options, size, said):
    with pytest.raises(UserError, match=said):
        summary(NetworkOptions(**options), size)


def test_the_network_of_a_run(run, small_run):
    outcome = run("summary", "--ckpt_path", str(small_run), "--output", "seen")
    assert outcome.code == 0, outcome.err
    written = json.loads(Path("seen/summary.json").read_text())
    expected = json.loads((small_run / "result.json").read_text())["parameters"]
    assert written["totals"]["parameters"] == expected
    assert (written["image_size"], written["layers"][-1]["shape"]) == (32, [10])
    assert run("summary", "--ckpt_path", str(small_run), "--image_size", "64", "--output", "seen").code == 0
    assert json.loads(Path("seen/summary.json").read_text())["image_size"] == 64
    outcome = run("summary", "--ckpt_path", str(small_run), "--model.width", "4")
    assert outcome.code == 2
    assert outcome.err == f"error: --ckpt_path {small_run} contains the network; leave out --model.width\n"
    assert "--ckpt_path nowhere: no such checkpoint" in run("summary", "--ckpt_path", "nowhere").err
