"""McNemar's test, its interval and Holm's correction against sums written out here."""

import math

import pytest
import torch

from customresnet.analysis.comparison.significance import MatchedPairs, holm


def test_counts_of_the_four_cells():
    first = torch.tensor([1, 1, 1, 0, 0, 1], dtype=torch.bool)
    second = torch.tensor([1, 0, 0, 1, 0, 1], dtype=torch.bool)
    assert MatchedPairs.count(first, second) == MatchedPairs(both=2, only_first=2, only_second=1, neither=1)
    assert MatchedPairs.count(first, second).images == 6
    assert MatchedPairs.count(first, second).difference == pytest.approx(4 / 6 - 3 / 6)


def test_a_table_computed_by_hand():
    pair = MatchedPairs(both=80, only_first=12, only_second=4, neither=4)
    # two-sided: 4 or fewer of 16 discordant images
    assert pair.p_value == pytest.approx(2 * (1 + 16 + 120 + 560 + 1820) / 65536)
    assert pair.difference == pytest.approx(0.08)
    # centre 8/102, standard error sqrt(17 - 64/102) / 102
    assert pair.interval == pytest.approx((0.0006804, 0.1561824), abs=1e-6)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 3), (0, 12), (40, 23), (150, 260)])
def test_p_value_is_the_exact_binomial_sum(first, second):
    discordant = first + second
    tail = sum(math.comb(discordant, k) for k in range(min(first, second) + 1)) / 2**discordant
    assert MatchedPairs(500, first, second, 100).p_value == pytest.approx(min(1.0, 2 * tail))


@pytest.mark.parametrize(
    ("both", "first", "second", "neither"), [(300, 30, 12, 18), (0, 0, 5, 0), (9000, 301, 260, 439)]
)
def test_interval_is_walds_with_half_an_image_added_to_each_cell(both, first, second, neither):
    cells = [cell + 0.5 for cell in (both, first, second, neither)]
    total = sum(cells)
    values = (0, 1, -1, 0)  # the difference within one image
    mean = sum(value * cell for value, cell in zip(values, cells, strict=True)) / total
    variance = sum((value - mean) ** 2 * cell for value, cell in zip(values, cells, strict=True)) / total
    half = 1.959963984540054 * math.sqrt(variance / total)
    expected = (max(-1, mean - half), min(1, mean + half))
    assert MatchedPairs(both, first, second, neither).interval == pytest.approx(expected)


def test_swapping_the_networks_changes_only_the_sign():
    one, other = MatchedPairs(80, 12, 4, 4), MatchedPairs(80, 4, 12, 4)
    assert one.p_value == other.p_value
    assert one.difference == -other.difference
    assert one.interval == pytest.approx([-bound for bound in reversed(other.interval)])


def test_equal_predictions_do_not_differ():
    correct = torch.tensor([True, False, True])
    pair = MatchedPairs.count(correct, correct)
    assert (pair.difference, pair.p_value) == (0, 1)
    assert pair.interval[0] < 0 < pair.interval[1]


@pytest.mark.parametrize(("first", "second"), [(3, 4), (0, 0)])
def test_different_numbers_of_images_or_none_are_refused(first, second):
    with pytest.raises(ValueError, match=f"not predictions for the same images: {first} and {second}"):
        MatchedPairs.count(torch.ones(first, dtype=torch.bool), torch.ones(second, dtype=torch.bool))


def test_holm_correction():
    # sorted 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1; increasing, and at most 1
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
