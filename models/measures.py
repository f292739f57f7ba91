"""All measures of a set of answers, and rows of them by corpus: each is judged on its own classes. numpy only.

Letters: N clips, H heads, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clser.models import evaluate
from clser.models.data.clips import Clip
from clser.models.data.corpora import Text

Array = np.ndarray[Any, Any]


def classes_of(corpus: str, clips: Sequence[Clip], heads: Sequence[str]) -> list[int]:
    """The heads on which a corpus is scored: those it has, but for classes some of whose clips were cut at a length."""
    own = [clip for clip in clips if clip.corpus == corpus]
    cut = {clip.emotion for clip in own if clip.truncated}
    return sorted({heads.index(clip.emotion) for clip in own if clip.emotion not in cut})


def rows(
    logits_NH: Array, clips: Sequence[Clip], heads: Sequence[str], limited: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """A row a corpus, in the clips' order. `limited`: corpora of which some clips were cut, named in the row."""
    found = []
    for corpus in dict.fromkeys(clip.corpus for clip in clips):
        classes = classes_of(corpus, clips, heads)
        own = [n for n, clip in enumerate(clips) if clip.corpus == corpus and heads.index(clip.emotion) in classes]
        if own:
            row = one(logits_NH[own], [clips[n] for n in own], heads, classes)
            found.append({"corpus": corpus, **row, "whole_classes_only": corpus in (limited or {})})
    return found


def one(logits_NH: Array, clips: Sequence[Clip], heads: Sequence[str], classes: Sequence[int]) -> dict[str, Any]:
    """All measures over these clips, every other class ruled out."""
    true_N = np.array([heads.index(clip.emotion) for clip in clips])
    probability_NH = evaluate.softmax(evaluate.restrict(logits_NH, classes))
    speakers = [clip.speaker or clip.name for clip in clips]
    return {
        "classes": [heads[c] for c in classes],
        "clips": len(clips),
        "speakers": len(set(speakers)),
        **of_answers(probability_NH, true_N, speakers, heads, classes),
    }


def of_answers(
    probability_NH: Array, true_N: Array, speakers: Sequence[str], heads: Sequence[str], classes: Sequence[int]
) -> dict[str, Any]:
    """All measures of probabilities that are zero outside `classes`, with the UAR's interval over speakers."""
    said_N = probability_NH.argmax(1)
    counts = evaluate.confusion(true_N, said_N, len(heads))
    per_class = evaluate.per_class(counts)
    return {
        "uar": round(evaluate.uar(counts), 4),
        "uar_interval": [round(x, 4) for x in evaluate.bootstrap(true_N, said_N, speakers, len(heads))],
        "war": round(evaluate.war(counts), 4),
        "macro_f1": round(evaluate.macro_f1(counts), 4),
        "weighted_f1": round(evaluate.weighted_f1(counts), 4),
        "ece": round(evaluate.ece(probability_NH, true_N), 4),
        "ece_corrected": round(evaluate.ece_corrected(probability_NH, true_N), 4),
        "nll": round(evaluate.nll(probability_NH, true_N), 4),
        "brier": round(evaluate.brier(probability_NH, true_N), 4),
        "aurc": round(evaluate.aurc(probability_NH, true_N), 4),
        "per_class": {heads[c]: {k: round(v, 4) for k, v in per_class[c].items()} for c in classes},
        "confusion": counts[np.ix_(classes, classes)].tolist(),
    }


def mean_uar(found: Sequence[Mapping[str, Any]]) -> float:
    """Every corpus counts alike."""
    return round(float(np.mean([row["uar"] for row in found])), 4) if found else 0.0


def text_rows(logits_NH: Array, texts: Sequence[Text], heads: Sequence[str]) -> list[dict[str, Any]]:
    """A row a text corpus, on texts with one label."""
    found = []
    for corpus in dict.fromkeys(text.corpus for text in texts):
        own = [n for n, text in enumerate(texts) if text.corpus == corpus and len(text.emotions) == 1]
        if not own:
            continue
        true_N = np.array([heads.index(texts[n].emotions[0]) for n in own])
        classes = sorted({int(c) for c in true_N})
        probability_NH = evaluate.softmax(evaluate.restrict(logits_NH[own], classes))
        counts = evaluate.confusion(true_N, probability_NH.argmax(1), len(heads))
        found.append(
            {
                "corpus": corpus,
                "classes": [heads[c] for c in classes],
                "texts": len(own),
                "uar": round(evaluate.uar(counts), 4),
                "war": round(evaluate.war(counts), 4),
                "macro_f1": round(evaluate.macro_f1(counts), 4),
                "weighted_f1": round(evaluate.weighted_f1(counts), 4),
                "nll": round(evaluate.nll(probability_NH, true_N), 4),
                "confusion": counts[np.ix_(classes, classes)].tolist(),
            }
        )
    return found
