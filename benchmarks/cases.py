"""The cases of the benchmark, each a function that runs in its own process.

    python -m benchmarks.cases fit '{"engine": "batch", "compile": true}'

prints one line of JSON. The images are random, since their content does not affect speed.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.ceiling import convolutions, products
from benchmarks.data import RandomImages, random_images
from benchmarks.pipeline import pipeline
from benchmarks.profiling import profile
from benchmarks.step import train_step
from customresnet.data.batches import InMemoryDataset, SeededBatchSampler
from customresnet.data.transforms.batch_backend import BatchBackend
from customresnet.data.transforms.policy import CIFAR10_MEAN, CIFAR10_STD, Augmentation
from customresnet.data.transforms.selection import EngineName
from customresnet.models import CustomResNet
from customresnet.runtime.memory import keep_freed_memory
from customresnet.schedules.one_cycle import OneCycle

CONSTANTS = (CIFAR10_MEAN, CIFAR10_STD, 32)
POLICY = OneCycle(lr_max=6e-4, lr_min=3e-5)
WARM_UP = 2
"""Steps before timing starts: they allocate memory and compile the network."""


class Stopwatch:
    """Times the steps after the warm-up."""

    def __init__(self, steps: int, batch_size: int) -> None:
        self.steps, self.batch_size, self.done, self.started, self.seconds = steps, batch_size, 0, 0.0, 0.0

    def tick(self) -> bool:
        """Count a finished step; returns True after the last one."""
        self.done += 1
        if self.done == WARM_UP:
            self.started = time.perf_counter()
        if self.done == WARM_UP + self.steps:
            self.seconds = time.perf_counter() - self.started
        return self.done >= WARM_UP + self.steps

    def result(self) -> dict[str, float]:
        return {
            "images_per_second": self.steps * self.batch_size / self.seconds,
            "seconds_per_step": self.seconds / self.steps,
        }


def notebook(steps: int, batch_size: int = 512, workers: int = 0) -> dict[str, float]:
    """The loop of the reports' notebooks: fp32, NCHW, Albumentations per image, DataLoader, plain Adam, tqdm."""
    import albumentations as A
    from albumentations.pytorch import ToTensorV2
    from tqdm import tqdm

    images = random_images((WARM_UP + steps + 1) * batch_size)
    transform = A.Compose(
        [
            A.Pad(padding=4),
            A.RandomCrop(32, 32),
            A.HorizontalFlip(p=0.5),
            A.Normalize(mean=CIFAR10_MEAN, std=CIFAR10_STD),
            A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(8, 8), hole_width_range=(8, 8), fill=0, p=1.0),
            ToTensorV2(),
        ]
    )

    class Images(Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return transform(image=images.images[index].numpy())["image"], int(images.labels[index])

    watch = Stopwatch(steps, batch_size)
    network = CustomResNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=POLICY.lr_max)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, POLICY.lr_max, total_steps=1000)
    criterion, correct, seen = nn.CrossEntropyLoss(), 0, 0
    loader = DataLoader(Images(), batch_size=batch_size, shuffle=True, num_workers=workers)
    network.train()
    bar = tqdm(loader)
    for number, (data, target) in enumerate(bar):
        optimizer.zero_grad()
        logits = network(data)
        loss = criterion(logits, target)
        loss.backward()
        optimizer.step()
        scheduler.step()
        correct += logits.argmax(dim=1).eq(target).sum().item()
        seen += len(data)
        bar.set_description(f"loss={loss.item()} batch={number} accuracy={100 * correct / seen:0.2f}")
        if watch.tick():
            break
    return watch.result()


def bare(steps: int, batch_size: int = 512, compile: bool = False, width: int = 64) -> dict[str, float]:
    """The fastest loop that we could write without Lightning: as ``fit``, but without metrics."""
    keep_freed_memory()
    network: nn.Module = CustomResNet(width=width).to(memory_format=torch.channels_last)
    if compile:
        network.compile(dynamic=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=POLICY.lr_max, fused=True)
    scheduler = POLICY.scheduler(optimizer, 1000, 98)
    watch = Stopwatch(steps, batch_size)
    data = InMemoryDataset(random_images((WARM_UP + steps) * batch_size), BatchBackend(Augmentation(), *CONSTANTS))
    for images, labels in _batches(data, batch_size):
        train_step(network, optimizer, images, labels)
        scheduler.step()
        if watch.tick():
            break
    return watch.result()


def fit(
    steps: int,
    batch_size: int = 512,
    engine: EngineName = "batch",
    compile: bool = False,
    width: int = 64,
    images: int | None = None,
) -> dict[str, float]:
    """``fit`` with its default logger, metrics and learning-rate curves, but no progress bar, as outside a terminal.

    Only training steps are timed, without evaluations and checkpoints.
    """
    import pytorch_lightning as pl

    from customresnet import ImageClassifier, Trainer
    from customresnet import fit as fit_command

    watch = Stopwatch(steps, batch_size)

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            trainer.should_stop = watch.tick()

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # TensorBoard may still write
        trainer = Trainer(
            default_root_dir=folder,
            callbacks=[Watch()],
            max_epochs=24,
            max_steps=WARM_UP + steps,
            limit_val_batches=0,
            accelerator="cpu",
        )
        model = ImageClassifier(lr_max=POLICY.lr_max, lr_min=POLICY.lr_min, compile=compile, width=width)
        data = RandomImages(images or (WARM_UP + steps) * batch_size, batch_size=batch_size, engine=engine)
        fit_command(model, data, trainer, report=False)
    return watch.result()


def _batches(data: InMemoryDataset, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for indices in SeededBatchSampler(len(data.data), batch_size, 0, shuffle=True):
        yield data[indices]


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    case.__name__: case for case in (notebook, bare, fit, pipeline, products, convolutions, profile)
}


def main() -> None:
    name, options = sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    result = CASES[name](**options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    print("RESULT " + json.dumps({**result, "peak_gib": peak}))


if __name__ == "__main__":
    main()
