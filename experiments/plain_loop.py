"""Train CustomResNet for four epochs with plain PyTorch, to see what `fit` adds or loses.

    python -m experiments.plain_loop --root cifar10.zip --seed 0 --precision fp32 --border zeros --head default

Adam without weight decay, the learning rate falls linearly from 4e-3 to 4e-4 without warm-up, crop, flip and cutout as
in the default recipe, all 50,000 images, batch size 512. It shares only the network and the reading of images with
`fit`: order, augmentation, optimizer, schedule and evaluation are its own. A line of JSON per run.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from customresnet import CIFAR10DataModule, CustomResNet

MEAN, STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
BATCH = 512


def augmented(images: Tensor, border: str) -> Tensor:
    """Crop, flip and cut out normalized images ``(N, 3, 32, 32)``, each by its own draw."""
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect" if border == "reflect" else "constant")
    rows, columns = torch.randint(0, 9, (2, len(images)))
    flips = torch.rand(len(images)) < 0.5
    holes = torch.randint(0, 25, (2, len(images)))
    out = torch.empty_like(images)
    for i in range(len(images)):
        image = padded[i, :, rows[i] : rows[i] + 32, columns[i] : columns[i] + 32]
        out[i] = image.flip(-1) if flips[i] else image
        out[i, :, holes[0, i] : holes[0, i] + 8, holes[1, i] : holes[1, i] + 8] = 0
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="a directory or .zip of {train,test}/<class>/*.png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--border", choices=("zeros", "reflect"), default="zeros")
    parser.add_argument(
        "--head", choices=("zeros", "default"), default="zeros", help="initial weights of the last layer"
    )
    parser.add_argument("--schedule", choices=("falling", "one_cycle"), default="falling")
    options = parser.parse_args()

    data = CIFAR10DataModule(source="folder", root=options.root, batch_size=BATCH)
    data.setup("fit")
    train, test = data.train_images, data.test_images
    train_x, test_x = ((part.images / 255 - MEAN) / STD for part in (train, test))
    train_x, test_x = (x.permute(0, 3, 1, 2).contiguous() for x in (train_x, test_x))

    torch.manual_seed(options.seed)
    net = CustomResNet(width=options.width).to(memory_format=torch.channels_last)
    if options.head == "default":
        net.head.reset_parameters()
    steps = options.epochs * -(-len(train_x) // BATCH)
    optimizer = torch.optim.Adam(net.parameters(), 4e-3)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16")
    step, begun, accuracies = 0, time.monotonic(), []
    for _ in range(options.epochs):
        net.train()
        for indices in torch.randperm(len(train_x)).split(BATCH):
            share = step / (steps - 1)
            if options.schedule == "one_cycle":  # up to 5/24 of the run, then down
                share = 1 - share * 24 / 5 if share < 5 / 24 else (share - 5 / 24) / (19 / 24)
            optimizer.param_groups[0]["lr"] = 4e-3 + share * (4e-4 - 4e-3)
            images = augmented(train_x[indices], options.border).contiguous(memory_format=torch.channels_last)
            with autocast:
                loss = F.cross_entropy(net(images), train.labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        net.eval()
        with torch.no_grad(), autocast:
            right = sum(
                int((net(x.contiguous(memory_format=torch.channels_last)).argmax(1) == y).sum())
                for x, y in zip(test_x.split(BATCH), test.labels.split(BATCH), strict=True)
            )
        accuracies.append(right / len(test_x))
    seconds = round(time.monotonic() - begun, 1)
    settings = {name: value for name, value in vars(options).items() if name != "root"}
    print(json.dumps({**settings, "test/acc": accuracies, "seconds": seconds}))


if __name__ == "__main__":
    main()
