"""Whether runs differ significantly: McNemar's test for each pair of runs with the same test images."""

from dataclasses import asdict
from itertools import combinations
from typing import Any

from customresnet.analysis.comparison.evaluations import Evaluations
from customresnet.analysis.comparison.mcnemar import MatchedPairs, holm
from customresnet.analysis.page import Section
from customresnet.runtime.formatting import percent

LEVEL = 0.05
"""Significance level."""
POINTS = "difference in points, 95 % interval"
FEW = 10
"""Pairs of runs that ``verdicts`` lists one by one."""


def significance(evaluations: Evaluations) -> Section:
    """Test each pair of runs evaluated on the same images."""
    pairs = [
        (first, second, MatchedPairs.count(correct[first], correct[second]))
        for correct in evaluations.correct
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
    section.facts = {
        name: f"{int(values.sum()):,} of {len(values):,} ({percent(float(values.double().mean()))})"
        for correct in evaluations.correct
        for name, values in correct.items()
    }
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
