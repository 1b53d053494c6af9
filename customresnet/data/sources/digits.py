"""The handwritten digits included in scikit-learn: real images without a download."""

import numpy as np
import torch
from PIL import Image

from customresnet.data.labelled_images import DEFAULT_IMAGE_SIZE, LabelledImages, Split

CLASSES = tuple("0123456789")
SIZES: dict[Split, int] = {"train": 1_437, "test": 360}


def load_digits(split: Split) -> LabelledImages:
    """Read one split of the 1,797 digits, enlarged from 8x8 gray to 32x32 RGB. The test set is a fixed fifth."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    digits = datasets.load_digits()
    parts = train_test_split(np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0)
    indices = np.sort(parts[0] if split == "train" else parts[1])
    gray = (digits.images[indices] * (255 / 16)).round().astype(np.uint8)
    size = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
    images = [np.asarray(Image.fromarray(g).resize(size, Image.Resampling.BICUBIC).convert("RGB")) for g in gray]
    labels = torch.from_numpy(digits.target[indices].astype(np.int64))
    return LabelledImages(torch.from_numpy(np.stack(images)), labels, CLASSES)
