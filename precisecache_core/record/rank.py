"""Rank correlation: how well a run's trials agree with its computed calls."""

from collections.abc import Sequence

import numpy as np


def rank(values: Sequence[float]) -> np.ndarray:
    """The rank of each value, from 0; equal values get their mean rank. Returns (n,) float64."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    return (last - (counts - 1) / 2)[inverse]


def rank_correlation(first: Sequence[float], second: Sequence[float], at_least: int = 4) -> float | None:
    """Spearman's rank correlation of two sequences, in [-1, 1].

    Pairs that are not finite are left out. None if fewer pairs than `at_least` remain or one side is constant.
    Raises ValueError if the lengths differ.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if np.isfinite(a) and np.isfinite(b)]
    if len(pairs) < at_least:
        return None
    a, b = (rank(side) for side in zip(*pairs))
    if a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
