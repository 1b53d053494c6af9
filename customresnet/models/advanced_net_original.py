"""AdvancedNetOriginal: the small network of the course report "advanced", unchanged: 97,284 parameters.

Four blocks of convolution -> ReLU -> batch norm -> dropout, joined by 1x1 convolutions of stride 2, then global average
pooling; 26.4 million multiply-adds. The report reached 87.43% on CIFAR-10 after 90 epochs. Its flaws remain: ReLU,
batch norm and dropout act on the logits; the pointwise halves of its depthwise-separable convolutions are padded, which
adds a border of zeros; the dilated convolution has too little padding and loses a border. The receptive field is 69
pixels before the pooling.

Source: the description in https://github.com/partha-goswami/EVA8/tree/main/Session6. None of its code is used.
"""

from torch import Tensor, nn


def unit(channels: int, *convolutions: nn.Module, dropout: float) -> list[nn.Module]:
    """Convolutions -> ReLU -> batch norm of ``channels`` -> (channel dropout)."""
    layers = [*convolutions, nn.ReLU(inplace=True), nn.BatchNorm2d(channels)]
    return [*layers, nn.Dropout2d(dropout)] if dropout > 0 else layers


def conv3(in_channels: int, out_channels: int, dilation: int = 1, groups: int = 1) -> nn.Module:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, dilation=dilation, groups=groups, bias=False)


def padded_pointwise(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Conv2d(in_channels, out_channels, 1, padding=1, bias=False)


def transition(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 1, stride=2), nn.ReLU(inplace=True)]


class AdvancedNetOriginal(nn.Module):
    """Images ``(N, 3, 32, 32)`` to logits ``(N, num_classes)``, which the last ReLU bounds from below.

    Args:
        num_classes: Number of classes.
        width: Channels of the first convolution; 32 gives 97,284 parameters.
        dropout: Probability of dropping a whole channel after each norm; 0 leaves the modules out.
    """

    def __init__(self, num_classes: int = 10, width: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        w, half, p = width, max(1, width // 2), dropout
        self.block1 = nn.Sequential(
            *unit(w, conv3(3, w), dropout=p), *unit(2 * w, conv3(w, 2 * w), dropout=p), *transition(2 * w, w)
        )
        self.block2 = nn.Sequential(
            *unit(w, conv3(w, w), dropout=p),
            *unit(2 * w, conv3(w, w, groups=w), padded_pointwise(w, 2 * w), dropout=p),
            *transition(2 * w, w),
        )
        self.block3 = nn.Sequential(
            *unit(2 * w, conv3(w, 2 * w, dilation=2), dropout=p),
            *unit(2 * w, conv3(2 * w, 2 * w), dropout=p),
            *transition(2 * w, half),
        )
        self.block4 = nn.Sequential(
            *unit(w, conv3(half, w), dropout=p),
            *unit(num_classes, conv3(w, w, groups=w), padded_pointwise(w, num_classes), dropout=p),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:  # shapes at width 32
        x = self.block1(x)  # (N, 32, 16, 16)
        x = self.block2(x)  # (N, 32, 9, 9): the padded pointwise convolution turns 16x16 into 18x18
        x = self.block3(x)  # (N, 16, 4, 4): the dilated convolution, padded too little, turns 9x9 into 7x7
        x = self.block4(x)  # (N, num_classes, 6, 6)
        return self.pool(x).flatten(1)  # (N, num_classes)
