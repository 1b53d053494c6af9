"""The augmentation policy for whole batches at once, on whatever device the images are: one set of draws an image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.policy import Augmentation, Channels
from customresnet.runtime.errors import UserError


@dataclass(frozen=True)
class AugmentParams:
    """What happens to each image of a batch; each is a Tensor ``(N,)``.

    Attributes:
        top: First row of the crop, in the padded image.
        left: Its first column.
        flip: Whether the crop is mirrored.
        cut: Whether there is a hole.
        hole_top: First row of the hole, in the crop.
        hole_left: Its first column.
    """

    top: Tensor
    left: Tensor
    flip: Tensor
    cut: Tensor
    hole_top: Tensor
    hole_left: Tensor


class BatchBackend:
    """Crop, flip, normalise and cut a batch at once. The distribution is that of the Albumentations engine.

    Every draw is a pure function of (seed, epoch, image index), so it does not matter how images are put into batches.

    Args:
        augmentation: The policy; moving and recolouring images is left to the Albumentations engine.
        mean: Per-channel mean of pixels scaled to [0, 1].
        std: Per-channel standard deviation of the same.
        image_size: Side of the images in pixels.

    Raises:
        UserError: The policy has a step that this engine does not know.
    """

    def __init__(self, augmentation: Augmentation, mean: Channels, std: Channels, image_size: int) -> None:
        self.augmentation, self.mean, self.std, self.image_size = augmentation, mean, std, image_size
        self._kept: dict[torch.device, tuple[Tensor, Tensor]] = {}
        for name, p in unknown_steps(augmentation).items():
            raise UserError(
                f"--data.engine batch does not move or recolour images; received --data.augment.{name} {p:g}: "
                "take --data.engine albumentations"
            )

    def __call__(self, images: Tensor, indices: Tensor, epoch_seed: int) -> Tensor:
        """Draw and apply: see ``draw`` and ``apply``."""
        return self.apply(images, indices, self.draw(indices, epoch_seed))

    def __str__(self) -> str:
        steps = AlbumentationsBackend(self.augmentation, self.mean, self.std, self.image_size)
        return f"{steps} (whole batches at once)"

    def draw(self, indices: Tensor, epoch_seed: int) -> AugmentParams:
        """The draws for images ``(N,)`` int64, on their device."""
        a, size = self.augmentation, self.image_size

        def uniform(number: int) -> Tensor:
            return _uniform(indices, epoch_seed, number)

        def below(limit: int, number: int) -> Tensor:
            return (uniform(number) * limit).long()

        return AugmentParams(
            top=below(2 * a.pad + 1, 0),
            left=below(2 * a.pad + 1, 1),
            flip=uniform(2) < a.flip,
            cut=uniform(3) < (a.cutout_p if a.cutout else 0.0),
            hole_top=below(size - a.cutout + 1, 4),
            hole_left=below(size - a.cutout + 1, 5),
        )

    def apply(self, images: Tensor, indices: Tensor, draws: AugmentParams) -> Tensor:
        """Prepare the images of a batch.

        Args:
            images: All images of the split, ``(M, H, W, 3)`` uint8.
            indices: Those of the batch, ``(N,)`` int64, on the same device.
            draws: What happens to each.

        Returns:
            ``(N, 3, H, W)`` float32 in channels_last memory order.
        """
        a, size = self.augmentation, self.image_size
        place = torch.arange(size, device=images.device)
        rows = self._inside(place + draws.top[:, None] - a.pad)  # (N, H)
        columns = torch.where(draws.flip[:, None], size - 1 - place, place)
        columns = self._inside(columns + draws.left[:, None] - a.pad)  # (N, W)
        # one gather of whole pixels takes the images out of the split, crops and flips them
        flat = (indices[:, None] * size + rows)[:, :, None] * size + columns[:, None, :]
        pixels = images.view(-1, 3).index_select(0, flat.view(-1))
        scale, shift = self._constants(images.device)
        # row by row, since vectors as short as a pixel are slow to add
        prepared = torch.addcmul(shift, pixels.view(-1, 3 * size).float(), scale)
        if a.cutout and a.cutout_p:
            inside = torch.arange(a.cutout, device=images.device)
            number = torch.arange(len(indices), device=images.device)
            hole_rows = (number * size + draws.hole_top)[:, None] + inside  # (N, cutout), counted over all images
            holes = hole_rows[:, :, None] * size + (draws.hole_left[:, None] + inside)[:, None, :]
            if a.cutout_p < 1:
                holes = holes[draws.cut]  # a GPU would wait here, so only where it must be
            prepared.view(-1, 3).index_fill_(0, holes.view(-1), 0.0)  # the mean exactly
        return prepared.view(len(indices), size, size, 3).permute(0, 3, 1, 2)

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """What a row of pixels is multiplied by and what is added, kept: a copy to a GPU waits for all its work."""
        if device not in self._kept:
            mean, std = (torch.tensor(constants).repeat(self.image_size) for constants in (self.mean, self.std))
            self._kept[device] = (1 / (255 * std)).to(device), (-mean / std).to(device)
        return self._kept[device]

    def _inside(self, at: Tensor) -> Tensor:
        """Where in the image a place in the padded one comes from."""
        last = self.image_size - 1
        if self.augmentation.border == "replicate":
            return at.clamp(0, last)
        return last - (last - at.abs()).abs()


def unknown_steps(augmentation: Augmentation) -> dict[str, float]:
    """The policy's steps that the batch engine does not know, with their probabilities."""
    steps = {
        "shift_scale_rotate.p": augmentation.shift_scale_rotate.p,
        "color_jitter.p": augmentation.color_jitter.p,
        "gray": augmentation.gray,
    }
    return {name: p for name, p in steps.items() if p}


def _uniform(indices: Tensor, seed: int, number: int) -> Tensor:
    """Numbers in [0, 1) that depend on (index, seed, number) only: SplitMix64 as a counter-based generator.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    x = indices * _signed(0x9E3779B97F4A7C15) + _signed((seed * 8 + number + 1) * 0xD1342543DE82EF95)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ _shifted(x, shift)) * _signed(factor)
    return _shifted(x ^ _shifted(x, 31), 40).float() / 2**24  # the upper 24 bits, which a float32 holds exactly


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; torch has only the arithmetic one."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The low 64 bits as torch's int64 holds them."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number
