"""openSMILE's functionals with a linear support vector machine, on our folds: what a usual toolkit would answer.

Its licence lets one compare with it, not build on it: it is imported here alone, if somebody installed it.
"""

import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from clser.engine.errors import MissingError
from clser.models.data.cache import FeatureCache
from clser.models.data.clips import Clip
from clser.models.enrolment import enrolment
from clser.models.measures import classes_of

Array = np.ndarray[Any, Any]
PENALTIES = (1e-5, 1e-4, 1e-3)
"""Tried on a third of the training speakers at a time."""
PRIOR_CLIPS = 5.0
"""A speaker's deviation from a few clips is shrunk to that of all: so many clips' worth."""


def answers(clips: Sequence[Clip], fold_of: Mapping[tuple[str, str], str], heard: int, cache: Path) -> dict[int, str]:
    """What is said of every clip that is scored, by its place: trained on its corpus's other folds.

    `heard` 0: features as they are. K: each test speaker's mean and deviation, from K clips that are not scored, are
    taken away, and each training speaker's, from all of theirs.
    """
    heads = sorted({clip.emotion for clip in clips})
    before, scored = enrolment(clips)
    said: dict[int, str] = {}
    for corpus in dict.fromkeys(clip.corpus for clip in clips):
        classes = classes_of(corpus, clips, heads)
        own = np.array(
            [n for n, clip in enumerate(clips) if clip.corpus == corpus and heads.index(clip.emotion) in classes]
        )
        x_NF = functionals([clips[n] for n in own], cache)
        true_N = np.array([heads.index(clips[n].emotion) for n in own])
        speakers = np.array([clips[n].speaker for n in own])
        folds = np.array([fold_of.get((clips[n].corpus, clips[n].name), "") for n in own])
        to_score = np.isin(own, scored)
        for fold in sorted(set(folds) - {""}):
            tested = folds == fold
            known = (
                {str(s): np.isin(own, before[corpus, str(s)][:heard]) for s in set(speakers[tested])} if heard else {}
            )
            x, x_test = _normalised(x_NF, speakers, tested, known)
            guesses = _fit_and_say(x, true_N[~tested], speakers[~tested], x_test[to_score[tested]])
            for place, guess in zip(own[tested & to_score], guesses, strict=True):
                said[int(place)] = heads[guess]
        print(f"  {corpus}: {len(own)} clips", file=sys.stderr, flush=True)
    return said


def functionals(clips: Sequence[Clip], cache: Path) -> Array:
    """[N, 6373], kept on disk."""
    key = blake2b(repr([(clip.corpus, clip.name) for clip in clips]).encode(), digest_size=8).hexdigest()
    path = cache / f"compare_2016.{clips[0].corpus}.{key}.npy"
    if not path.exists():
        opensmile = _module("opensmile", "opensmile")
        smile = opensmile.Smile(opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel.Functionals)
        sounds = FeatureCache(cache).sounds(clips, lambda line: print(line, file=sys.stderr))
        rows = []
        for n in range(len(clips)):
            pcm = sounds.clip(n)[:, 0].astype(np.float32) / 32768.0
            rows.append(smile.process_signal(pcm, 16_000).to_numpy()[0])
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, np.nan_to_num(np.array(rows, np.float32)))
    return np.asarray(np.load(path))


def _module(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingError(
            f"--peer: {error.name} is not installed; `pip install {package}` (its licence is its own)"
        ) from error


def _normalised(x_NF: Array, speakers: Array, tested: Array, known: Mapping[str, Array]) -> tuple[Array, Array]:
    mean_F, deviation_F = x_NF[~tested].mean(0), x_NF[~tested].std(0) + 1e-6
    z_NF = (x_NF - mean_F) / deviation_F
    if not known:
        return z_NF[~tested], z_NF[tested]
    out = z_NF.copy()
    within = np.mean([z_NF[speakers == s].var(0) for s in set(speakers[~tested])], axis=0)
    for speaker in set(speakers):
        rows = speakers == speaker
        heard = known.get(str(speaker), rows)
        clips = heard.sum()
        variance = (z_NF[heard].var(0) * clips + within * PRIOR_CLIPS) / (clips + PRIOR_CLIPS)
        out[rows] = (z_NF[rows] - z_NF[heard].mean(0)) / np.sqrt(variance + 1e-6)
    return out[~tested], out[tested]


def _fit_and_say(x_NF: Array, true_N: Array, speakers: Array, x_MF: Array) -> Array:
    """Through the products of rows alone, of which there are fewer than of features."""
    svm = _module("sklearn.svm", "scikit-learn")
    products_NN, wanted_MN = x_NF @ x_NF.T, x_MF @ x_NF.T
    names = sorted(set(speakers))
    group = np.array([names.index(s) % 3 for s in speakers])

    def recall(penalty: float) -> float:
        rights = []
        for third in range(3):
            out = group == third
            if not out.any() or len(set(true_N[~out])) < 2:
                continue
            machine = svm.SVC(C=penalty, kernel="precomputed", class_weight="balanced")
            machine.fit(products_NN[np.ix_(~out, ~out)], true_N[~out])
            guess = machine.predict(products_NN[np.ix_(out, ~out)])
            rights += [np.mean(guess[true_N[out] == c] == c) for c in set(true_N[out])]
        return float(np.mean(rights))

    best = max(PENALTIES, key=recall)
    machine = svm.SVC(C=best, kernel="precomputed", class_weight="balanced").fit(products_NN, true_N)
    return np.asarray(machine.predict(wanted_MN))
