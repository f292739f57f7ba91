"""How good the answers are: recalls, calibration, and how sure one may be of both. numpy only.

Letters: N clips, H classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from clser.models.labels import HEADS, PUBLISHED, PUBLISHED_AS

Array = np.ndarray[Any, Any]
BINS = 15


def softmax(logits_NH: Array) -> Array:
    """Probabilities; a logit of minus infinity is a class that cannot be."""
    shifted = np.exp(logits_NH - logits_NH.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def restrict(logits_NH: Array, classes: Sequence[int]) -> Array:
    """The same logits with every class that the corpus lacks ruled out."""
    allowed = np.full(logits_NH.shape[-1], -np.inf)
    allowed[list(classes)] = 0.0
    return np.asarray(logits_NH + allowed)


def confusion(true_N: Array, said_N: Array, classes: int) -> Array:
    """[classes, classes]: row what it was, column what was said."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (true_N, said_N), 1)
    return counts


def uar(counts: Array) -> float:
    """Unweighted average recall: the mean over classes that occur."""
    occurs = counts.sum(1) > 0
    return float((np.diag(counts)[occurs] / counts.sum(1)[occurs]).mean())


def war(counts: Array) -> float:
    """Weighted average recall, which is accuracy."""
    return float(np.diag(counts).sum() / counts.sum())


def macro_f1(counts: Array) -> float:
    """The mean of the classes' F1, over classes that occur."""
    occurs = counts.sum(1) > 0
    return float((2 * np.diag(counts)[occurs] / (counts.sum(1) + counts.sum(0))[occurs]).mean())


def ece(probability_NH: Array, true_N: Array, bins: int = BINS) -> float:
    """Expected calibration error: |accuracy - confidence| in bins of confidence, weighted by how many fall in each."""
    confidence = probability_NH.max(1)
    right = probability_NH.argmax(1) == true_N
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[which == b].mean() - confidence[which == b].mean()) * (which == b).mean() for b in set(which)]
    return float(sum(gaps))


def nll(probability_NH: Array, true_N: Array) -> float:
    """Mean negative log-likelihood, in nats."""
    return float(-np.log(np.maximum(probability_NH[np.arange(len(true_N)), true_N], 1e-12)).mean())


def published(probability_NH: Array) -> Array:
    """[N, 9] of the heads -> [N, 7] of the published classes."""
    out = np.zeros((len(probability_NH), len(PUBLISHED)))
    for index, head in enumerate(HEADS):
        out[:, PUBLISHED.index(PUBLISHED_AS[head])] += probability_NH[:, index]
    return out


def risk_at(probability_NH: Array, true_N: Array, least: float) -> tuple[float, float]:
    """(coverage, risk): how much is answered when confidence must reach `least`, and how much of that is wrong."""
    answered = probability_NH.max(1) >= least
    if not answered.any():
        return 0.0, 0.0
    wrong = probability_NH[answered].argmax(1) != true_N[answered]
    return float(answered.mean()), float(wrong.mean())


def bootstrap(
    true_N: Array, said_N: Array, speaker_N: Sequence[str], classes: int, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the UAR when the speakers, not the clips, are drawn anew."""
    names = sorted(set(speaker_N))
    speakers = np.asarray(speaker_N)
    each = np.stack([confusion(true_N[speakers == name], said_N[speakers == name], classes) for name in names])
    random = np.random.default_rng(seed)
    values = [uar(each[random.integers(len(names), size=len(names))].sum(0)) for _ in range(draws)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
