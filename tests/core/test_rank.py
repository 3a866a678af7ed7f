"""Spearman's rank correlation, by hand and against SciPy if it is installed."""

import math

import numpy as np
import pytest

from precisecache_core.record.rank import rank, rank_correlation


@pytest.mark.parametrize("levels", [3, 8, 10**6])  # few levels give many ties
@pytest.mark.parametrize("count", [4, 11, 50])
def test_equals_scipy(count, levels):
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(count + levels)
    first = generator.integers(levels, size=count).astype(float)
    second = first + generator.integers(levels, size=count)
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second)[0], abs=1e-12)


def test_ties_share_their_mean_rank():
    assert rank([7, 1, 7, 3]).tolist() == [2.5, 0, 2.5, 1]


def test_by_hand_with_ties():
    # ranks 0 1.5 1.5 3 and 0 1 2 3: covariance 4.5 over sqrt(4.5 * 5)
    assert rank_correlation([1, 2, 2, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(22.5))


def test_any_rising_relation_is_one_and_any_falling_minus_one():
    first = [1.0, 2.0, 5.0, 3.0, 4.0]
    assert rank_correlation(first, [math.exp(v) for v in first]) == pytest.approx(1)
    assert rank_correlation(first, [1 / v for v in first]) == pytest.approx(-1)


def test_fewer_than_four_pairs_give_none():
    assert rank_correlation([], []) is None
    assert rank_correlation([1, 2, 3], [1, 2, 3]) is None
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]) == pytest.approx(1)


def test_a_constant_gives_none():
    assert rank_correlation([5, 5, 5, 5], [1, 2, 3, 4]) is None
    assert rank_correlation([1, 2, 3, 4], [5, 5, 5, 5]) is None


def test_pairs_that_are_not_finite_are_left_out():
    first, second = [1, math.nan, 2, 3, 4, 99], [1, -5, 2, 3, 4, -math.inf]
    assert rank_correlation(first, second) == pytest.approx(1)
    assert rank_correlation(first[:4], second[:4]) is None
