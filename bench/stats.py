"""The few statistics that the benchmarks quote. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]
P99_FROM = 100
"""With fewer values than this, the 99th percentile would be no more than the largest of them."""


class Distribution(Struct, frozen=True):
    """None where there was nothing to measure, or too little for a p99."""

    p50: float | None
    p95: float | None
    p99: float | None
    n: int


class Slope(Struct, frozen=True):
    per_s: float | None
    error: float | None
    """One standard error."""


def distribution(values: ArrayLike, p99: bool = True, digits: int = 2) -> Distribution:
    data = np.asarray(values, np.float64)
    if data.size == 0:
        return Distribution(None, None, None, 0)
    p50, p95, p99_value = (round(float(value), digits) for value in np.percentile(data, (50, 95, 99)))
    return Distribution(p50, p95, p99_value if p99 and data.size >= P99_FROM else None, int(data.size))


def slope(at_s: ArrayLike, values: ArrayLike) -> Slope:
    """Least squares; the error needs three points."""
    x, y = np.asarray(at_s, np.float64), np.asarray(values, np.float64)
    if x.size < 3 or float(np.ptp(x)) == 0.0:
        return Slope(None, None)
    x = x - x.mean()
    spread = float(x @ x)
    per_s = float(x @ (y - y.mean())) / spread
    left = y - y.mean() - per_s * x
    return Slope(per_s, float(np.sqrt(left @ left / (x.size - 2) / spread)))


def medians_per_second(at_s: ArrayLike, values: ArrayLike) -> tuple[Numbers, Numbers]:
    """The middle of each second that has values, and their median: one stray value moves no line."""
    seconds, data = np.floor(np.asarray(at_s, np.float64)), np.asarray(values, np.float64)
    order = np.argsort(seconds, kind="stable")
    each, starts = np.unique(seconds[order], return_index=True)
    piles = np.split(data[order], starts[1:])
    return each + 0.5, np.array([np.median(pile) for pile in piles if pile.size], np.float64)


def settled_after(at_s: Numbers, values: Numbers, begin_s: float, limit: float, still_s: float = 10.0) -> float | None:
    """Seconds from `begin_s` until each second's value is at most `limit`, and stays so for `still_s` or to the end; else None."""
    inside = at_s >= begin_s - 0.5
    at, above = at_s[inside], at_s[inside & (values > limit)]
    for start_s in (begin_s, *(above + 0.5)):
        after = above[above > start_s]
        if not after.size or after[0] > start_s + still_s:
            return float(start_s - begin_s) if (at > start_s).any() else None
    return None


def roc_auc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Chance that a positive scores above a negative, ties counting half (Mann and Whitney)."""
    data, positive = np.asarray(scores, np.float64), np.asarray(labels, np.bool_)
    positives = int(positive.sum())
    negatives = positive.size - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(data, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]  # the mean rank of each group of ties, from 1
    above = float(ranks[positive].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def rounded(value: Any, digits: int = 3) -> Any:
    """Floats within lists and dicts cut to what is worth reading."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {key: rounded(each, digits) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(each, digits) for each in value]
    return value
