"""What the runs of a recipe say together: a calibration nobody was judged by, and the figures of a model card.

Letters: N clips, H heads.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clser.models import calibrate, evaluate, measures, trust
from clser.models.data.clips import Clip
from clser.models.labels import NONE, PUBLISHED, PUBLISHED_AS
from clser.models.saved import Calibration

Array = np.ndarray[Any, Any]
FOUR = ("anger", "happiness", "neutral", "sadness")
"""What every corpus has."""
COVERAGE = 0.75
"""So much is to be answered; the rest is abstained from."""
KNOWN = "after_"


class Said(NamedTuple):
    """A run's answers for the clips that are scored, by how many others of their speaker were heard before."""

    heads: tuple[str, ...]
    clips: list[Clip]
    logits_NH: dict[int, Array]


def read(folder: Path, clips: Mapping[tuple[str, str], Clip]) -> Said:
    """What that run left in `answers.npz`; `clips` by corpus and name."""
    with np.load(folder / "answers.npz", allow_pickle=False) as kept:
        after = {int(name.removeprefix(KNOWN)): kept[name] for name in kept.files if name.startswith(KNOWN)}
        scored = np.isfinite(next(iter(after.values()))[:, 0])
        names = zip(kept["corpus"][scored].tolist(), kept["name"][scored].tolist(), strict=True)
        logits = {0: kept["logits"][scored], **{heard: each[scored] for heard, each in after.items()}}
        return Said(tuple(kept["heads"].tolist()), [clips[name] for name in names], logits)


def calibrated(folds: Sequence[Said]) -> tuple[Calibration, float]:
    """Temperature and offsets by all held-out answers, for strangers and for speakers heard; and under which confidence
    the least sure quarter of them lies."""
    calibration = _fit(folds)
    sure_N = np.concatenate([_published(fold, calibration, heard).max(1) for fold in folds for heard in fold.logits_NH])
    return calibration, round(float(np.quantile(sure_N, 1.0 - COVERAGE)), 4)


def table(folds: Sequence[Said], left_out: Mapping[str, Said]) -> dict[str, Any]:
    """Every figure. Each fold is calibrated by the others, so nobody by himself."""
    honest = [_fit([other for other in folds if other is not fold]) for fold in folds]
    everything = _fit(folds)
    return {
        "inside": {str(heard): _inside(folds, honest, heard) for heard in folds[0].logits_NH},
        "left_out": {
            str(heard): _left_out(left_out, everything, heard) for heard in next(iter(left_out.values())).logits_NH
        },
        "trust": {str(heard): _trust(folds, honest, heard) for heard in folds[0].logits_NH},
        "by_gender": {str(heard): _by_gender(folds, honest, heard) for heard in folds[0].logits_NH},
        "offsets": dict(zip(folds[0].heads, (round(x, 3) for x in everything.offsets), strict=True)),
    }


def _fit(folds: Sequence[Said]) -> Calibration:
    kinds = list(folds[0].logits_NH)
    logits = np.concatenate([fold.logits_NH[heard] for heard in kinds for fold in folds])
    clips = [clip for _ in kinds for fold in folds for clip in fold.clips]
    return calibrate.fit(logits, clips, heads=folds[0].heads)


def _published(fold: Said, calibration: Calibration, heard: int) -> Array:
    """[N, 7] as an engine publishes them."""
    probability_NH = evaluate.softmax(calibration.apply(fold.logits_NH[heard]))
    said_NC = evaluate.published(probability_NH, fold.heads)
    return np.asarray(said_NC / said_NC.sum(1, keepdims=True))


def _true(clips: Sequence[Clip]) -> Array:
    return np.array([PUBLISHED.index(PUBLISHED_AS[clip.emotion]) for clip in clips])


def _inside(folds: Sequence[Said], honest: Sequence[Calibration], heard: int) -> dict[str, Any]:
    logits = np.concatenate([each.apply(fold.logits_NH[heard]) for fold, each in zip(folds, honest, strict=True)])
    rows = measures.rows(logits, [clip for fold in folds for clip in fold.clips], folds[0].heads)
    kept = (
        "corpus",
        "classes",
        "clips",
        "speakers",
        "uar",
        "uar_interval",
        "war",
        "macro_f1",
        "ece",
        "nll",
        "per_class",
    )
    return {"mean_uar": measures.mean_uar(rows), "rows": [{key: row[key] for key in kept} for row in rows]}


def _left_out(said: Mapping[str, Said], everything: Calibration, heard: int) -> dict[str, Any]:
    """On the four classes, with the calibration of the folds: these speakers had no part in these runs, but in those."""
    rows = []
    for corpus, one in said.items():
        own = [n for n, clip in enumerate(one.clips) if clip.emotion in FOUR]
        classes = [one.heads.index(emotion) for emotion in FOUR]
        row = measures.one(everything.apply(one.logits_NH[heard][own]), [one.clips[n] for n in own], one.heads, classes)
        rows.append({"corpus": corpus, "clips": row["clips"], "uar": row["uar"], "uar_interval": row["uar_interval"]})
    return {"mean_uar": round(float(np.mean([row["uar"] for row in rows])), 4), "rows": rows}


def _trust(folds: Sequence[Said], honest: Sequence[Calibration], heard: int) -> dict[str, Any]:
    """Over all finals of held-out speakers, as published."""
    said_NC = np.concatenate([_published(fold, each, heard) for fold, each in zip(folds, honest, strict=True)])
    clips = [clip for fold in folds for clip in fold.clips]
    found = trust.worth(said_NC, _true(clips), ["/".join(clip.who) for clip in clips])
    none_N = np.concatenate([
        evaluate.softmax(each.apply(fold.logits_NH[heard]))[:, fold.heads.index(NONE)]
        for fold, each in zip(folds, honest, strict=True)
        if NONE in fold.heads
    ] or [np.zeros(1)])  # fmt: skip
    return {**found, "speech_taken_for_none": round(float((none_N >= 0.5).mean()), 4)}


def _by_gender(folds: Sequence[Said], honest: Sequence[Calibration], heard: int) -> dict[str, dict[str, float]]:
    """UAR as published, by corpus and gender: on the classes that the corpus has."""
    found: dict[str, dict[str, float]] = {}
    said_N = np.concatenate([_published(fold, each, heard).argmax(1) for fold, each in zip(folds, honest, strict=True)])
    clips = [clip for fold in folds for clip in fold.clips]
    true_N = _true(clips)
    for corpus in dict.fromkeys(clip.corpus for clip in clips):
        for gender in sorted({clip.gender for clip in clips if clip.corpus == corpus}):
            own = [n for n, clip in enumerate(clips) if (clip.corpus, clip.gender) == (corpus, gender)]
            counts = evaluate.confusion(true_N[own], said_N[own], len(PUBLISHED))
            found.setdefault(corpus, {})[gender] = round(evaluate.uar(counts), 4)
    return found
