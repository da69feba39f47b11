"""Figures against brute force and closed forms."""

from itertools import combinations, product
from math import comb

import numpy as np
import pytest

from open_r1.evaluation.metrics import (
    consensus,
    in_percent,
    mean_with_interval,
    paired_difference,
    pass_at_1,
    pass_at_k,
    percentile,
    vote_credit,
)


def test_pass_at_1_is_the_mean_over_samples():
    assert pass_at_1([[True, False, False, True], [False] * 4]) == [0.5, 0.0]


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_equals_the_share_of_all_subsets_with_a_right_one(n):
    for c, k in product(range(n + 1), range(1, n + 1)):
        right = [i < c for i in range(n)]
        subsets = [any(subset) for subset in combinations(right, k)]
        assert pass_at_k(n, c, k) == pytest.approx(sum(subsets) / len(subsets))


def test_pass_at_k_is_unbiased():
    """Its expectation over c ~ Binomial(n, p) is 1 - (1-p)^k."""
    n, k, p = 12, 5, 0.3
    expected = sum(comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
    assert expected == pytest.approx(1 - (1 - p) ** k)


def test_pass_at_k_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="pass@5 needs at least 5 samples"):
        pass_at_k(4, 2, 5)


def test_vote_credit_is_the_chance_of_a_random_pick_among_the_leading_answers():
    for right, *wrong in product(range(4), repeat=3):
        votes = {"gold": right, "x": wrong[0], "y": wrong[1]}
        most = max(votes.values())
        leading = [name for name, count in votes.items() if count == most and count > 0]
        expected = leading.count("gold") / len(leading) if leading else 0.0
        assert vote_credit(right, wrong) == pytest.approx(expected)


def test_consensus_counts_equal_answers_together_and_absent_ones_not():
    answers = ["1/2", "0.5", None, "3", "3.0", "4"]
    correct = [True, True, False, False, False, False]
    right, wrong = consensus(answers, correct, lambda a, b: float(a) == float(b))
    assert (right, sorted(wrong)) == (2, [1, 2])


@pytest.mark.parametrize(("value", "n", "exact"), [(0.0, 30, (0.0, 0.11570)), (1.0, 30, (0.88430, 1.0))])
def test_all_alike_gives_clopper_pearson(value, n, exact):
    """0 of 30: the tabled Clopper-Pearson bound 11.57%."""
    estimate = mean_with_interval([value] * n)
    assert estimate.value == value
    assert estimate.ci95 == pytest.approx(exact, abs=1e-4)


def test_no_interval_is_empty():
    for values in ([0.5] * 10, [1.0], [0.25]):
        low, high = mean_with_interval(values).ci95
        assert 0 <= low < values[0] <= high <= 1 or low < high


def test_the_interval_covers_the_truth_about_19_times_in_20():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        rates = rng.beta(2, 2, size=60)
        low, high = mean_with_interval(rates.tolist(), resamples=500).ci95
        hits += low <= 0.5 <= high
    assert 0.90 <= hits / 300 <= 0.99


def test_the_interval_is_that_of_the_normal_approximation_for_many_problems():
    values = np.random.default_rng(0).random(2000)
    low, high = mean_with_interval(values.tolist()).ci95
    half = 1.96 * values.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-3)


def test_the_interval_is_reproducible():
    values = [0.0, 0.5, 1.0, 0.25]
    assert mean_with_interval(values) == mean_with_interval(values)


def test_pairing_removes_what_problems_have_in_common():
    rng = np.random.default_rng(0)
    a = rng.random(200)
    b = np.clip(a + 0.05 + 0.01 * rng.standard_normal(200), 0, 1)
    paired = paired_difference(a.tolist(), b.tolist())
    assert paired.value == pytest.approx((b - a).mean())
    assert paired.ci95[0] > 0.03
    assert paired.ci95[1] - paired.ci95[0] < 0.01


def test_equal_results_differ_by_zero_with_an_interval():
    estimate = paired_difference([1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    assert estimate.value == 0
    assert estimate.ci95[0] < 0 < estimate.ci95[1]


def test_percentile():
    assert percentile(list(range(101)), 95) == 95
    assert percentile([], 95) is None


def test_a_share_and_its_interval_in_percent():
    assert in_percent(0.3934, (0.3512, 0.4)) == "39.3 [35.1, 40.0]"
    assert in_percent(1.0, [0.9, 1.0], unit="%") == "100.0% [90.0, 100.0]"
    assert in_percent(-0.012, (-0.03, 0.004), signed=True) == "-1.2 [-3.0, +0.4]"
