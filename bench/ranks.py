"""Which of several systems are better over several tests: mean ranks and Friedman's test (1937). Pure.

Letters: N blocks (a corpus with a seed, say), K systems.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

SERIES_END = 1e-15


class Friedman(NamedTuple):
    """What came out."""

    ranks_K: NDArray[np.float64]
    """Means over the blocks; 1 is the best."""
    statistic: float
    p: float
    """How likely a statistic as large is where no system is better than another."""


def friedman(scores_NK: ArrayLike) -> Friedman:
    """Of scores, the higher the better. Systems that are equal in a block share their ranks there, and ties are corrected for.

    The p-value is that of the chi-square distribution with K - 1 degrees of freedom: rough below ten blocks.
    """
    scores = np.asarray(scores_NK, np.float64)
    blocks, systems = scores.shape
    assert blocks > 1 and systems > 1, "ranks need several systems and several blocks"
    ranks_NK = np.array([_ranks(row) for row in scores])
    ties = sum(float((count**3 - count).sum()) for count in (np.unique(row, return_counts=True)[1] for row in scores))
    correction = 1.0 - ties / (blocks * systems * (systems**2 - 1))
    sum_K = ranks_NK.sum(0)
    statistic = 12.0 / (blocks * systems * (systems + 1)) * float((sum_K**2).sum()) - 3.0 * blocks * (systems + 1)
    if correction == 0.0:  # all equal everywhere
        return Friedman(ranks_NK.mean(0), 0.0, 1.0)
    statistic = max(0.0, statistic / correction)
    return Friedman(ranks_NK.mean(0), statistic, above(statistic, systems - 1))


def _ranks(row_K: NDArray[np.float64]) -> NDArray[np.float64]:
    better = (row_K[None] > row_K[:, None]).sum(1)
    equal = (row_K[None] == row_K[:, None]).sum(1)
    ranks: NDArray[np.float64] = better + (equal + 1) / 2
    return ranks


def above(statistic: float, degrees: int) -> float:
    """How likely a chi-square variable of so many degrees of freedom is above that."""
    shape, x = degrees / 2.0, statistic / 2.0
    if x <= 0.0:
        return 1.0
    # the regularised lower incomplete gamma function as its series, whose terms all have one sign
    term = total = 1.0 / shape
    n = shape
    while term > total * SERIES_END:
        n += 1.0
        term *= x / n
        total += term
    below = total * math.exp(shape * math.log(x) - x - math.lgamma(shape))
    return min(1.0, max(0.0, 1.0 - below))
