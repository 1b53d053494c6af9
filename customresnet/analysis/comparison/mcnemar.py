"""McNemar's test: whether two networks differ, given their predictions for the same images."""

import math
from dataclasses import dataclass

from torch import Tensor

from customresnet.runtime.intervals import Z95


@dataclass(frozen=True)
class MatchedPairs:
    """The contingency table of two networks: the number of images by which network classified them correctly."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @classmethod
    def count(cls, first: Tensor, second: Tensor) -> "MatchedPairs":
        """Count the images of each cell from two ``(N,)`` bool: whether a network classified each image correctly.

        Raises:
            ValueError: The numbers of images differ, or there are none.
        """
        if first.shape != second.shape or not len(first):
            raise ValueError(f"not predictions for the same images: {len(first)} and {len(second)}")
        cells = (first & second, first & ~second, ~first & second, ~first & ~second)
        return cls(*(int(cell.sum()) for cell in cells))

    @property
    def images(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """The first network's accuracy minus the second's."""
        return (self.only_first - self.only_second) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the difference: Wald's, with half an image added to each cell.

        Source: Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", 2005.
        """
        images, first, second = self.images + 2, self.only_first + 0.5, self.only_second + 0.5
        center = (first - second) / images
        half = Z95 * math.sqrt((first + second) / images - center**2) / math.sqrt(images)
        return max(-1.0, center - half), min(1.0, center + half)

    @property
    def p_value(self) -> float:
        """McNemar's exact test: the probability of a split at least as unequal of the images that only one got right.

        Source: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
        """
        from scipy.stats import binomtest

        discordant = self.only_first + self.only_second
        return float(binomtest(self.only_first, discordant).pvalue) if discordant else 1.0


def holm(p_values: list[float]) -> list[float]:
    """Adjust p values for multiple tests, in the same order.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
