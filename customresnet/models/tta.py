"""Test-time augmentation by mirroring."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def flip_tta(network: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Within this context, the network returns the mean of its logits for the images and for their mirror images."""

    def mean(module: nn.Module, args: tuple[Tensor, ...], logits: Tensor) -> Any:
        return (logits + module.forward(args[0].flip(-1))) / 2

    if not enabled:
        yield
        return
    hook = network.register_forward_hook(mean)
    try:
        yield
    finally:
        hook.remove()
