"""AdvancedNet: a small residual network of depthwise-separable and dilated convolutions, under 100,000 parameters."""

from torch import Tensor, nn


def separable(channels: int, dilation: int = 1) -> list[nn.Module]:
    """Depthwise 3x3 convolution -> 1x1 convolution -> batch norm; keeps height and width."""
    return [
        nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]


def transition(in_channels: int, out_channels: int) -> list[nn.Module]:
    """1x1 convolution of stride 2 -> batch norm -> ReLU."""
    return [
        nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


class SeparableResidual(nn.Module):
    """``relu(x + f(x))``, where f is two depthwise-separable convolutions with a ReLU between them."""

    def __init__(self, channels: int, dilation: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        first = [*separable(channels), nn.ReLU(inplace=True)]
        if dropout > 0:
            first.append(nn.Dropout2d(dropout))
        second = separable(channels, dilation)
        nn.init.zeros_(second[-1].get_parameter("weight"))  # each block starts as the identity
        self.body = nn.Sequential(*first, *second)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return self.relu(x + self.body(x))


class AdvancedNet(nn.Module):
    """Images ``(N, 3, H, W)`` to logits ``(N, num_classes)``.

    Args:
        num_classes: Number of classes.
        width: Channels of the first stage; the others have 2 and 3 times as many.
        dropout: Probability of dropping a whole channel inside each residual block; 0 leaves the modules out.
        blocks: Residual blocks of each stage; those of the last one are dilated.
    """

    def __init__(
        self, num_classes: int = 10, width: int = 32, dropout: float = 0.0, blocks: tuple[int, int, int] = (1, 4, 2)
    ) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(nn.Conv2d(3, w, 3, padding=1, bias=False), nn.BatchNorm2d(w), nn.ReLU(inplace=True))
        self.stage1 = nn.Sequential(*(SeparableResidual(w, dropout=dropout) for _ in range(blocks[0])))
        self.stage2 = nn.Sequential(
            *transition(w, 2 * w), *(SeparableResidual(2 * w, dropout=dropout) for _ in range(blocks[1]))
        )
        self.stage3 = nn.Sequential(
            *transition(2 * w, 3 * w),
            *(SeparableResidual(3 * w, dilation=2, dropout=dropout) for _ in range(blocks[2])),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(3 * w, num_classes)
        nn.init.zeros_(self.head.weight)  # all classes start equally likely, as in CustomResNet
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:  # shapes at width 32, images of 32x32
        x = self.stage1(self.stem(x))  # (N, 32, 32, 32)
        x = self.stage2(x)  # (N, 64, 16, 16)
        x = self.stage3(x)  # (N, 96, 8, 8)
        return self.head(self.pool(x).flatten(1))  # (N, num_classes)
