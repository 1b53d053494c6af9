"""CustomResNet: a nine-layer residual network for 32x32 images, 6,573,130 parameters.

The network of the ERA/EVA course assignment, which is David Page's DAWNBench ResNet-9
(https://github.com/davidcpage/cifar10-fast) with batch normalization after the pooling.
"""

from torch import Tensor, nn


def conv_block(in_channels: int, out_channels: int, *, pool: bool = False, dropout: float = 0.0) -> list[nn.Module]:
    """3x3 convolution -> (2x2 max-pool) -> batch norm -> ReLU -> (dropout)."""
    block: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)]
    if pool:
        block.append(nn.MaxPool2d(2))
    block += [nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    if dropout > 0:
        block.append(nn.Dropout(dropout))
    return block


class Residual(nn.Module):
    """``x + f(x)``, where f is two convolution blocks that keep the shape."""

    def __init__(self, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_block(channels, channels, dropout=dropout),
            *conv_block(channels, channels, dropout=dropout),
        )

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return x + self.body(x)


class CustomResNet(nn.Module):
    """Images ``(N, 3, 32, 32)`` to logits ``(N, num_classes)``; the loss applies softmax.

    Larger images work too: the last pooling is followed by a global maximum.

    Args:
        num_classes: Number of classes.
        width: Channels of the first convolution; the stages have 2, 4 and 8 times as many.
        dropout: Probability of dropping a unit after each ReLU of layers 1 to 3; 0 leaves the modules out.
    """

    def __init__(self, num_classes: int = 10, width: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        w = width
        self.prep = nn.Sequential(*conv_block(3, w))
        self.layer1 = nn.Sequential(*conv_block(w, 2 * w, pool=True, dropout=dropout), Residual(2 * w, dropout))
        self.layer2 = nn.Sequential(*conv_block(2 * w, 4 * w, pool=True, dropout=dropout))
        self.layer3 = nn.Sequential(*conv_block(4 * w, 8 * w, pool=True, dropout=dropout), Residual(8 * w, dropout))
        self.pool = nn.MaxPool2d(4)
        self.head = nn.Linear(8 * w, num_classes)
        # All classes start equally likely, at a loss of ln(num_classes). With torch's default initialization the loss
        # starts at twice that, and an LR range test mostly shows the logits shrinking.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:  # shapes at width 64
        x = self.prep(x)  # (N, 64, 32, 32)
        x = self.layer1(x)  # (N, 128, 16, 16)
        x = self.layer2(x)  # (N, 256, 8, 8)
        x = self.layer3(x)  # (N, 512, 4, 4)
        x = self.pool(x).amax(dim=(2, 3))  # (N, 512)
        return self.head(x)  # (N, num_classes)
