"""The transform backend that prepares whole batches at once, on the device that holds the images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.policy import Augmentation, Channels
from customresnet.runtime.errors import UserError


@dataclass(frozen=True)
class AugmentParams:
    """The random parameters of a batch, each a Tensor ``(N,)`` with one value per image."""

    top: Tensor  # first row of the crop, in the padded image
    left: Tensor  # first column of the crop
    flip: Tensor  # whether the crop is flipped
    cut: Tensor  # whether there is a hole
    hole_top: Tensor  # first row of the hole, in the crop
    hole_left: Tensor  # first column of the hole


class BatchBackend:
    """Crop, flip, normalize and cut out whole batches, with the probabilities of AlbumentationsBackend.

    Every random value is a pure function of (seed, epoch, image index), so it does not depend on the batch. ``mean``
    and ``std`` are those of pixels in [0, 1].

    Raises:
        UserError: The policy has a step that this backend does not support: geometric, color or gray.
    """

    def __init__(self, augmentation: Augmentation, mean: Channels, std: Channels, image_size: int) -> None:
        self.augmentation, self.mean, self.std, self.image_size = augmentation.scaled(image_size), mean, std, image_size
        self._pad, self._cutout = self.augmentation.pad or 0, self.augmentation.cutout or 0
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}
        refuse_unsupported(augmentation)

    def __call__(self, images: Tensor, indices: Tensor, epoch_seed: int) -> Tensor:
        """Prepare a batch with random parameters: see ``make_params`` and ``apply``."""
        return self.apply(images, indices, self.make_params(indices, epoch_seed))

    def __str__(self) -> str:
        steps = AlbumentationsBackend(self.augmentation, self.mean, self.std, self.image_size)
        return f"{steps} (whole batches at once)"

    def make_params(self, indices: Tensor, epoch_seed: int) -> AugmentParams:
        """Draw the parameters of the images ``indices``, ``(N,)`` int64, on their device."""
        a, size = self.augmentation, self.image_size

        def uniform(stream: int) -> Tensor:
            return _uniform(indices, epoch_seed, stream)

        def below(limit: int, stream: int) -> Tensor:
            return (uniform(stream) * limit).long()

        return AugmentParams(
            top=below(2 * self._pad + 1, 0),
            left=below(2 * self._pad + 1, 1),
            flip=uniform(2) < a.flip,
            cut=uniform(3) < (a.cutout_p if self._cutout else 0.0),
            hole_top=below(size - self._cutout + 1, 4),
            hole_left=below(size - self._cutout + 1, 5),
        )

    def apply(self, images: Tensor, indices: Tensor, params: AugmentParams) -> Tensor:
        """Prepare a batch with given parameters.

        Args:
            images: All images of the split, ``(M, H, W, 3)`` uint8.
            indices: The images of the batch, ``(N,)`` int64, on the same device.
            params: Their parameters.

        Returns:
            ``(N, 3, H, W)`` float32 in channels_last memory format.
        """
        a, size = self.augmentation, self.image_size
        position = torch.arange(size, device=images.device)
        rows = self._unpad(position + params.top[:, None] - self._pad)  # (N, H)
        columns = torch.where(params.flip[:, None], size - 1 - position, position)
        columns = self._unpad(columns + params.left[:, None] - self._pad)  # (N, W)
        # a single gather of pixels selects, crops and flips the images
        flat = (indices[:, None] * size + rows)[:, :, None] * size + columns[:, None, :]
        pixels = images.view(-1, 3).index_select(0, flat.view(-1))
        scale, shift = self._scale_and_shift(images.device)
        # by row: adding vectors of 3 floats, one per pixel, is slow
        prepared = torch.addcmul(shift, pixels.view(-1, 3 * size).float(), scale)
        if self._cutout and a.cutout_p:
            side = torch.arange(self._cutout, device=images.device)
            number = torch.arange(len(indices), device=images.device)
            hole_rows = (number * size + params.hole_top)[:, None] + side  # (N, cutout), counted over the whole batch
            holes = hole_rows[:, :, None] * size + (params.hole_left[:, None] + side)[:, None, :]
            if a.cutout_p < 1:
                holes = holes[params.cut]  # synchronizes with a GPU, so only if some images have no hole
            prepared.view(-1, 3).index_fill_(0, holes.view(-1), 0.0)  # exactly the mean
        return prepared.view(len(indices), size, size, 3).permute(0, 3, 1, 2)

    def _scale_and_shift(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Factor and offset that normalize a row of pixels. Cached, since copying to a GPU synchronizes with it."""
        if device not in self._constants:
            mean, std = (torch.tensor(constants).repeat(self.image_size) for constants in (self.mean, self.std))
            self._constants[device] = (1 / (255 * std)).to(device), (-mean / std).to(device)
        return self._constants[device]

    def _unpad(self, position: Tensor) -> Tensor:
        """Map rows or columns of the padding to those of the image that they copy."""
        last = self.image_size - 1
        if self.augmentation.border == "replicate":
            return position.clamp(0, last)
        return last - (last - position.abs()).abs()


def refuse_unsupported(augmentation: Augmentation) -> None:
    """Raise a UserError for a step that BatchBackend does not support."""
    for name, p in unsupported_steps(augmentation).items():
        raise UserError(
            f"`engine` batch does not support `augment.{name}`; received {p:g}: pass `engine` albumentations"
        )


def unsupported_steps(augmentation: Augmentation) -> dict[str, float]:
    """The steps of a policy that BatchBackend does not support, with their probabilities."""
    steps = {
        "shift_scale_rotate.p": augmentation.shift_scale_rotate.p,
        "color_jitter.p": augmentation.color_jitter.p,
        "gray": augmentation.gray,
    }
    return {name: p for name, p in steps.items() if p}


def _uniform(indices: Tensor, seed: int, stream: int) -> Tensor:
    """Numbers in [0, 1) that depend only on (index, seed, stream): SplitMix64 as a counter-based generator.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    x = indices * _int64(0x9E3779B97F4A7C15) + _int64((seed * 8 + stream + 1) * 0xD1342543DE82EF95)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ _shift_right(x, shift)) * _int64(factor)
    return _shift_right(x ^ _shift_right(x, 31), 40).float() / 2**24  # a float32 holds the upper 24 bits exactly


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """A logical right shift; torch has only the arithmetic one."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _int64(number: int) -> int:
    """The low 64 bits of a number as a signed integer."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number
