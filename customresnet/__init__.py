"""CustomResNet on CIFAR-10 with PyTorch Lightning and the One Cycle policy."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from customresnet.commands.fit import fit
    from customresnet.data.datamodule import CIFAR10DataModule
    from customresnet.data.transforms.policy import Augmentation
    from customresnet.models.custom_resnet import CustomResNet
    from customresnet.schedules.one_cycle import OneCycle
    from customresnet.schedules.triangular import Triangular
    from customresnet.training.classifier import ImageClassifier
    from customresnet.training.lr.bounds import LRRangeTest
    from customresnet.training.trainer import Trainer

# Loaded at first use: importing this package takes milliseconds, importing torch and Lightning takes seconds.
_MODULES = {
    "Augmentation": "customresnet.data.transforms.policy",
    "CIFAR10DataModule": "customresnet.data.datamodule",
    "CustomResNet": "customresnet.models.custom_resnet",
    "ImageClassifier": "customresnet.training.classifier",
    "LRRangeTest": "customresnet.training.lr.bounds",
    "OneCycle": "customresnet.schedules.one_cycle",
    "Trainer": "customresnet.training.trainer",
    "Triangular": "customresnet.schedules.triangular",
    "fit": "customresnet.commands.fit",
}

__all__ = [
    "Augmentation",
    "CIFAR10DataModule",
    "CustomResNet",
    "ImageClassifier",
    "LRRangeTest",
    "OneCycle",
    "Trainer",
    "Triangular",
    "fit",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
