"""Whether two networks really differ, by what each answered to the same images."""

import math
from dataclasses import dataclass

from torch import Tensor

from customresnet.runtime.intervals import Z95


@dataclass(frozen=True)
class Paired:
    """How two networks answered the same images.

    Attributes:
        both: Images that both got right.
        only_first: Images that only the first got right.
        only_second: Images that only the second got right.
        neither: Images that neither got right.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def images(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """The first's accuracy less the second's."""
        return (self.only_first - self.only_second) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The difference's 95 % interval: Wald's, with half an image more in each of the four cells.

        Source: Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", 2005.
        """
        images, first, second = self.images + 2, self.only_first + 0.5, self.only_second + 0.5
        centre = (first - second) / images
        half = Z95 * math.sqrt((first + second) / images - centre**2) / math.sqrt(images)
        return max(-1.0, centre - half), min(1.0, centre + half)

    @property
    def p_value(self) -> float:
        """McNemar's exact test: how likely the images that only one got right fall to the two so unequally by chance.

        Source: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
        """
        from scipy.stats import binomtest

        discordant = self.only_first + self.only_second
        return float(binomtest(self.only_first, discordant).pvalue) if discordant else 1.0


def paired(correct_a: Tensor, correct_b: Tensor) -> Paired:
    """Count who got what right.

    Args:
        correct_a: ``(N,)`` bool: whether the first network named each image rightly.
        correct_b: The same of the second, for the same images in the same order.

    Raises:
        ValueError: They are not answers to the same images.
    """
    if correct_a.shape != correct_b.shape or not len(correct_a):
        raise ValueError(f"not answers to the same images: {len(correct_a)} and {len(correct_b)}")
    cells = (correct_a & correct_b, correct_a & ~correct_b, ~correct_a & correct_b, ~correct_a & ~correct_b)
    return Paired(*(int(cell.sum()) for cell in cells))


def holm(p_values: list[float]) -> list[float]:
    """The p values, corrected for being that many, in the same order.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    corrected, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
