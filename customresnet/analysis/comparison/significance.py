"""Whether runs differ significantly: McNemar's test for each pair of runs with the same test images."""

import math
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from torch import Tensor

from customresnet.analysis.comparison.evaluations import Evaluations
from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.runtime.formatting import percent
from customresnet.runtime.intervals import Z95

LEVEL = 0.05
"""Significance level."""
POINTS = "difference in points, 95 % interval"
FEW = 10
"""Pairs of runs that ``verdicts`` lists one by one."""


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


def significance(evaluations: Evaluations) -> Section:
    """Test each pair of runs evaluated on the same images."""
    pairs = [
        (first, second, MatchedPairs.count(correct[first], correct[second]))
        for correct in ({name: each.correct for name, each in shared.items()} for shared in evaluations.shared)
        for first, second in combinations(correct, 2)
    ]
    skipped = [
        f"{', '.join(name for name, own in evaluations.skipped.items() if own == reason)}: {reason}"
        for reason in dict.fromkeys(evaluations.skipped.values())
    ]
    section = Section("differences", "Are the differences significant?")
    if not pairs:
        section.missing = "; ".join(["a test needs two checkpoints with the same test images", *skipped])
        return section
    adjusted = holm([pair.p_value for _, _, pair in pairs])
    section.facts = {name: _accuracy(each) for shared in evaluations.shared for name, each in shared.items()}
    rows = [
        {
            "first": first,
            "second": second,
            **asdict(pair),
            "difference": pair.difference,
            "interval": list(pair.interval),
            "p_value": pair.p_value,
            "holm": p,
        }
        for (first, second, pair), p in zip(pairs, adjusted, strict=True)
    ]
    section.numbers = {"pairs": rows, "without_answers": evaluations.skipped}
    section.table = [_row(*pair, p, len(pairs) > 1) for pair, p in zip(pairs, adjusted, strict=True)]
    section.text = [*_sentences(len(pairs)), *(f"Not tested: {reason}." for reason in skipped)]
    return section


def _accuracy(predictions: Predictions) -> str:
    correct, images = int(predictions.correct.sum()), len(predictions.labels)
    accuracy = f"{correct:,} of {images:,} ({percent(correct / images)})"
    if not predictions.is_unbalanced:
        return accuracy
    majority, macro = percent(predictions.majority_accuracy), percent(predictions.macro_accuracy)
    return f"{accuracy}; macro accuracy {macro}; largest class {majority}"


def _row(first: str, second: str, pair: MatchedPairs, adjusted: float, several: bool) -> dict[str, Any]:
    low, high = pair.interval
    differ = f"differ: p {_p_value(adjusted, '= ')}" + " (Holm)" * several
    return {
        "pair": f"{first} and {second}",
        "verdict": differ if adjusted < LEVEL else f"no significant difference on {pair.images:,} images",
        POINTS: f"{100 * pair.difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})",
        "p": _p_value(pair.p_value),
        **({"p by Holm": _p_value(adjusted)} if several else {}),
        "both right": pair.both,
        "only first": pair.only_first,
        "only second": pair.only_second,
        "both wrong": pair.neither,
    }


def _p_value(value: float, equals: str = "") -> str:
    return f"{equals}{value:.2g}" if value >= 1e-4 else "< 0.0001"


def _sentences(pairs: int) -> list[str]:
    text = [
        "Each network was evaluated on its test images for this page, and each pair of runs with the same test images "
        "was tested. Images that both networks classify correctly, or both incorrectly, do not distinguish them. "
        "McNemar's exact test gives the probability that the other images split this unequally by chance. The "
        "difference is the first run's accuracy minus the second's, with the interval of Agresti and Min (2005).",
        "The test compares these trained networks, not their recipes: another seed gives another network.",
    ]
    if pairs > 1:
        text.append(
            f"Without correction, one in {round(1 / LEVEL)} tests finds a difference where there is none. Holm's "
            f"correction limits the probability of even one such error in these {pairs} tests to {LEVEL:.0%}. The "
            "verdicts use the corrected values."
        )
    return text


def verdicts(section: Section) -> str:
    """The verdict on each pair of runs, one per line, or the number of pairs that differ."""
    if section.missing:
        return f"differences not tested: {section.missing}"
    if len(section.table) > FEW:
        differing = sum(row["verdict"].startswith("differ") for row in section.table)
        return f"{differing} of {len(section.table)} pairs of runs differ"
    return "\n".join(f"{row['pair']}: {row['verdict']}; {row[POINTS]} points" for row in section.table)
