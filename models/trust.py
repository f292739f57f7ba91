"""What confidence is worth: whether it says how often an answer is right, and whether the surer answers are the better ones.

`evaluate` has the measures that end in one figure (`ece`, `ece_corrected`, `risk_coverage`, `aurc`, `risk_at`); here are those
that need the bins or the curve, and how sure one may be of all of them. numpy only.

Letters: N answers, H classes, B bins, D draws.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clser.models import evaluate
from clser.models.evaluate import BINS

Array = np.ndarray[Any, Any]
COVERAGE = 0.75
POINTS = 50
"""Of a curve, as many are kept."""


class Bin(NamedTuple):
    """Answers whose confidence is from `low` up to `high`."""

    low: float
    high: float
    answers: int
    confidence: float
    """Their mean. 0 where there are no answers."""
    right: float
    """The share that is right."""


def reliability(probability_NH: Array, true_N: Array, bins: int = BINS) -> list[Bin]:
    """All bins from 0 to 1, equally wide; the empty ones too."""
    many_B, sure_B, right_B = _binned(probability_NH, true_N, bins)
    return [Bin(b / bins, (b + 1) / bins, int(many_B[b]), float(sure_B[b]), float(right_B[b])) for b in range(bins)]


def squared_error(probability_NH: Array, true_N: Array, bins: int = BINS) -> float:
    """The mean squared gap between confidence and accuracy, without the part that is luck; below 0 where luck was good.

    The plug-in estimate is too high by the variance of each bin's accuracy. Taken off, what is left has no bias, for any
    true gap and however few answers there are (Broecker 2012; Ferro and Fricker 2012; for the top class Kumar, Liang and
    Ma 2019, "Verified uncertainty calibration", the debiased estimator):

        E^2 = sum_B  n_B / N * [ (right_B - sure_B)^2 - right_B (1 - right_B) / (n_B - 1) ]

    over bins of two answers or more. (`evaluate.ece_corrected` takes off the luck of a model without any gap: it is 0 for
    a model that has none, and too kind to one that has.)
    """
    many_B, sure_B, right_B = _binned(probability_NH, true_N, bins)
    some = many_B > 1
    if not some.any():
        return 0.0
    many_B, sure_B, right_B = many_B[some], sure_B[some], right_B[some]
    gap_B = np.square(right_B - sure_B) - right_B * (1.0 - right_B) / (many_B - 1)
    return float((many_B * gap_B).sum() / many_B.sum())


def rms_gap(probability_NH: Array, true_N: Array, bins: int = BINS) -> float:
    """By how much accuracy is off the confidence that was said: the root of `squared_error`, 0 where that is below."""
    return float(np.sqrt(max(0.0, squared_error(probability_NH, true_N, bins))))


def threshold(probability_NH: Array, coverage: float = COVERAGE) -> float:
    """The confidence to ask for so that no more than this share of the answers is given, if they are like these."""
    sure_N = np.sort(probability_NH.max(1))[::-1]
    many = int(np.floor(coverage * len(sure_N) + 1e-9))
    if many >= len(sure_N):
        return 0.0
    # Equally sure answers go together: where the bound falls among them, none of them is given.
    above = sure_N[:many][sure_N[:many] > sure_N[many]]
    return float(above[-1]) if len(above) else float(np.nextafter(sure_N[many], np.inf))


def error_at(probability_NH: Array, true_N: Array, coverage: float = COVERAGE) -> float:
    """The share that is wrong among the surest `coverage`; of 1, the error of all answers."""
    return float(np.interp(coverage, *evaluate.risk_coverage(probability_NH, true_N)))


def curve(probability_NH: Array, true_N: Array, points: int = POINTS) -> list[tuple[float, float]]:
    """(coverage, error) from the surest few to all, evenly apart."""
    least = min(1.0, max(1.0 / points, 10.0 / len(true_N)))  # the first few answers alone say nothing
    at = np.linspace(least, 1.0, points)
    return list(zip(at.tolist(), np.interp(at, *evaluate.risk_coverage(probability_NH, true_N)).tolist(), strict=True))


def figures(probability_NH: Array, true_N: Array) -> dict[str, float]:
    """What is worth an interval: `ece`, `rms_gap`, `aurc`, the `error` of all answers and of the surest 75 %, and by how much
    that is less (`spared_at_75`)."""
    coverage_N, risk_N = evaluate.risk_coverage(probability_NH, true_N)
    error, surest = float(risk_N[-1]), float(np.interp(COVERAGE, coverage_N, risk_N))
    return {
        "ece": evaluate.ece(probability_NH, true_N),
        "rms_gap": rms_gap(probability_NH, true_N),
        "aurc": float(risk_N.mean()),
        "error": error,
        "error_at_75": surest,
        "spared_at_75": error - surest,
    }


def intervals(
    probability_NH: Array, true_N: Array, speaker_N: Sequence[str], *, draws: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each of the `figures` when the speakers, not the answers, are drawn anew.

    A speaker who is drawn twice is as lucky twice: the intervals of `ece` and `rms_gap` lie rather too high than too low.
    """
    probability_NH, true_N = _bare(probability_NH, true_N)
    return _bounds([figures(probability_NH[rows], true_N[rows]) for rows in _drawn(speaker_N, draws, seed)])


def compared(
    probability_NH: Array, other_NH: Array, true_N: Array, speaker_N: Sequence[str], *, draws: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """(difference, low, high) of each of the `figures`: by how much it is above the other's for the same clips, and the 95 %
    interval when the same speakers are drawn for both."""
    ours, other = _bare(probability_NH, true_N), _bare(other_NH, true_N)

    def difference(rows: Array) -> dict[str, float]:
        theirs = figures(*(each[rows] for each in other))
        return {name: value - theirs[name] for name, value in figures(*(each[rows] for each in ours)).items()}

    bounds = _bounds([difference(rows) for rows in _drawn(speaker_N, draws, seed)])
    return {name: (value, *bounds[name]) for name, value in difference(np.arange(len(true_N))).items()}


def worth(
    probability_NH: Array, true_N: Array, speaker_N: Sequence[str] = (), *, draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """All of it, as it goes into a JSON document and onto a picture. Without speakers there are no intervals."""
    found: dict[str, Any] = {name: round(value, 4) for name, value in figures(probability_NH, true_N).items()}
    found["ece_corrected"] = round(evaluate.ece_corrected(probability_NH, true_N), 4)
    found["squared_error"] = round(squared_error(probability_NH, true_N), 6)
    found["threshold_75"] = round(threshold(probability_NH), 4)
    found["answers"] = len(true_N)
    if len(speaker_N):
        each = intervals(probability_NH, true_N, speaker_N, draws=draws, seed=seed)
        found["intervals"] = {name: [round(low, 4), round(high, 4)] for name, (low, high) in each.items()}
    found["bins"] = [
        {name: round(value, 4) for name, value in one._asdict().items()} for one in reliability(probability_NH, true_N)
    ]
    found["curve"] = [[round(at, 4), round(risk, 4)] for at, risk in curve(probability_NH, true_N)]
    return found


def _binned(probability_NH: Array, true_N: Array, bins: int) -> tuple[Array, Array, Array]:
    """[B] each: how many answers, their mean confidence, the share that is right; zeros where there are none."""
    sure_N = probability_NH.max(1)
    right_N = probability_NH.argmax(1) == true_N
    which_N = np.minimum((sure_N * bins).astype(int), bins - 1)
    many_B = np.bincount(which_N, minlength=bins)
    over_B = np.maximum(many_B, 1)
    sure_B = np.bincount(which_N, sure_N, bins) / over_B
    return many_B, sure_B, np.bincount(which_N, right_N, bins) / over_B


def _drawn(speaker_N: Sequence[str], draws: int, seed: int) -> Iterator[Array]:
    """Rows of as many speakers as there are, drawn with putting back."""
    names, which_N = np.unique(np.asarray(speaker_N), return_inverse=True)
    rows_of = [np.flatnonzero(which_N == at) for at in range(len(names))]
    random = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.concatenate([rows_of[at] for at in random.integers(len(names), size=len(names))])


def _bare(probability_NH: Array, true_N: Array) -> tuple[Array, Array]:
    """The same answers as [N, 2], the one that was given first: all that matters here, and quicker to draw from."""
    sure_N = probability_NH.max(1)
    return np.stack((sure_N, np.zeros_like(sure_N)), 1), np.where(probability_NH.argmax(1) == true_N, 0, 1)


def _bounds(drawn: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    found = {}
    for name in drawn[0]:
        low, high = np.percentile([each[name] for each in drawn], [2.5, 97.5])
        found[name] = (float(low), float(high))
    return found
