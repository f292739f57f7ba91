"""How good the answers are: recalls, calibration, and how sure one may be of both. numpy only.

Letters: N clips, H classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from clser.models.labels import HEADS, NONE, PUBLISHED, PUBLISHED_AS

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


def weighted_f1(counts: Array) -> float:
    """The mean of the classes' F1, each counted as often as its class occurs."""
    both = counts.sum(1) + counts.sum(0)
    f1 = 2 * np.diag(counts) / np.maximum(1, both)
    return float((f1 * counts.sum(1)).sum() / counts.sum())


def per_class(counts: Array) -> list[dict[str, float]]:
    """Recall, precision and F1 of each class, and how often it occurs; 0 where there is nothing to divide by."""
    right, occurs, said = np.diag(counts), counts.sum(1), counts.sum(0)
    return [
        {
            "recall": float(right[c] / max(1, occurs[c])),
            "precision": float(right[c] / max(1, said[c])),
            "f1": float(2 * right[c] / max(1, occurs[c] + said[c])),
            "n": int(occurs[c]),
        }
        for c in range(len(counts))
    ]


def uar_by(group_N: Sequence[str], true_N: Array, said_N: Array, classes: int) -> dict[str, float]:
    """The UAR within each group, in the order in which they come."""
    groups = np.asarray(group_N)
    return {
        str(group): uar(confusion(true_N[groups == group], said_N[groups == group], classes))
        for group in dict.fromkeys(group_N)
    }


def ece(probability_NH: Array, true_N: Array, bins: int = BINS) -> float:
    """Expected calibration error: |accuracy - confidence| in bins of confidence, weighted by how many fall in each."""
    confidence = probability_NH.max(1)
    right = probability_NH.argmax(1) == true_N
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[which == b].mean() - confidence[which == b].mean()) * (which == b).mean() for b in set(which)]
    return float(sum(gaps))


def ece_corrected(probability_NH: Array, true_N: Array, bins: int = BINS, *, draws: int = 200, seed: int = 0) -> float:
    """The ECE less what a perfectly calibrated model with the same confidences would show by chance, at least 0.

    Few answers in a bin miss their confidence by luck alone, which biases the ECE upwards. That luck is drawn: labels
    that are right with just the probability that was said (the consistency resampling of Broecker and Smith 2007).
    """
    confidence = probability_NH.max(1)
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    random = np.random.default_rng(seed)
    sure = np.bincount(which, confidence, bins)
    by_luck = []
    for _ in range(draws):
        right = np.bincount(which, random.random(len(confidence)) < confidence, bins)
        by_luck.append(np.abs(right - sure).sum() / len(confidence))
    return max(0.0, ece(probability_NH, true_N, bins) - float(np.mean(by_luck)))


def nll(probability_NH: Array, true_N: Array) -> float:
    """Mean negative log-likelihood, in nats."""
    return float(-np.log(np.maximum(probability_NH[np.arange(len(true_N)), true_N], 1e-12)).mean())


def brier(probability_NH: Array, true_N: Array) -> float:
    """Mean squared distance from certainty about the right class, over all classes: 0 to 2 (Brier 1950)."""
    return float(np.square(probability_NH - np.eye(probability_NH.shape[1])[true_N]).sum(1).mean())


def risk_coverage(probability_NH: Array, true_N: Array) -> tuple[Array, Array]:
    """([N], [N]): coverage, and risk among the surest that make it up (El-Yaniv and Wiener 2010).

    Answers that are equally sure are answered together: they share the risk at the end of their run.
    """
    sure_N = probability_NH.max(1)
    order = np.argsort(-sure_N, kind="stable")
    wrong_N = (probability_NH.argmax(1) != true_N)[order]
    many_N = np.arange(1, len(order) + 1)
    risk_N = wrong_N.cumsum() / many_N
    ends = np.searchsorted(-sure_N[order], -sure_N[order], side="right") - 1
    return many_N / len(order), risk_N[ends]


def aurc(probability_NH: Array, true_N: Array) -> float:
    """Area under the risk-coverage curve: the mean risk over all coverages."""
    return float(risk_coverage(probability_NH, true_N)[1].mean())


def published(probability_NH: Array, heads: Sequence[str] = HEADS) -> Array:
    """[N, H] of the heads -> [N, 7] of the published classes. What goes to `none` is published as nothing: rows sum to less."""
    out = np.zeros((len(probability_NH), len(PUBLISHED)))
    for index, head in enumerate(heads):
        if head != NONE:
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


def paired_bootstrap(
    true_N: Array,
    said_N: Array,
    other_N: Array,
    speaker_N: Sequence[str],
    classes: int,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """(difference, low, high): by how much the UAR of `said_N` is above that of `other_N`, both for the same clips, and
    its 95 % interval when the same speakers are drawn for both."""
    names = sorted(set(speaker_N))
    speakers = np.asarray(speaker_N)
    each = np.stack(
        [
            [confusion(true_N[speakers == name], answers[speakers == name], classes) for name in names]
            for answers in (said_N, other_N)
        ]
    )
    random = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        drawn = random.integers(len(names), size=len(names))
        values.append(uar(each[0, drawn].sum(0)) - uar(each[1, drawn].sum(0)))
    low, high = np.percentile(values, [2.5, 97.5])
    return uar(each[0].sum(0)) - uar(each[1].sum(0)), float(low), float(high)
