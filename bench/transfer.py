"""Systems trained on some corpora, then on a few speakers of another as well, and tested on its other speakers.

A target's speakers are drawn by seed. What is tested with `heard` knows of a speaker what his earlier clips tell, in an
order that is drawn too; nothing that comes later, and no label.

Letters: N clips, F numbers, X what is known of a speaker, H heads.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from clser.bench.functionals import functionals
from clser.bench.shots import clips_of, scored
from clser.bench.workshop import Score, Silent, Workshop
from clser.engine.errors import MissingError
from clser.models import adapt, evaluate, runs, saved
from clser.models.answers import FITTED_ON, logits_of, sound_of
from clser.models.data.cache import FeatureCache
from clser.models.data.clips import Clip
from clser.models.data.front_features import by_front
from clser.models.data.takes import clean_take
from clser.models.examples import TakeFeatures, ordered
from clser.models.features.manner import WIDTH as MANNER_WIDTH
from clser.models.features.whole_manner import WholeManner
from clser.models.plan import Plan
from clser.models.train import train
from clser.models.validation import Validation

Array = NDArray[Any]

VERSION = 1
"""Counts up when the same settings would give other answers."""
TUNING = {"epochs": 8}
PRIOR_CLIPS = 3.0
"""How many clips the usual counts for beside those of the speaker."""
MOST_OF_A_CORPUS = 800
"""Clips of one source corpus in a linear machine."""
PENALTY = 1e-4
TARGET_SHARE = 0.5
"""Of a linear machine's weights."""


class Draw(NamedTuple):
    """Whose clips are trained on."""

    corpus: str
    speakers: int
    seed: int


class Asked(NamedTuple):
    """What is trained on, and what is known of those who are tested."""

    source: bool = True
    target: bool = True
    heard: bool = False
    adapted: bool = False
    """Tuned as `clser-models adapt --part all` does it; else on the source too, so that it is not forgotten."""


def parted(clips: Sequence[Clip], draw: Draw) -> tuple[list[int], list[int]]:
    """Places of the target's clips to train on, and to test on."""
    own = [n for n, clip in enumerate(clips) if clip.corpus == draw.corpus]
    whos = sorted({clips[n].who for n in own})
    chosen = {whos[n] for n in np.random.default_rng(draw.seed).permutation(len(whos))[: draw.speakers]}
    return [n for n in own if clips[n].who in chosen], [n for n in own if clips[n].who not in chosen]


def earlier(clips: Sequence[Clip], tested: Sequence[int], seed: int) -> dict[int, list[int]]:
    """Of each clip that is tested, those of its speaker that were heard before it."""
    random = np.random.default_rng((seed, 1))
    before: dict[int, list[int]] = {}
    of: dict[tuple[str, str], list[int]] = {}
    for n in random.permutation(np.array(tested)):
        heard = of.setdefault(clips[n].who, [])
        before[int(n)] = list(heard)
        heard.append(int(n))
    return before


def transferred(shop: Workshop, plans: Sequence[Plan], draw: Draw, asked: Asked, inits: int) -> Score:
    """Of the mean of all systems: each plan's source run, tuned to the target's speakers, `inits` times."""
    found = []
    for plan in plans:
        for init in range(inits):
            seed = (draw.seed + init) % inits if inits > 1 else draw.seed  # so that source runs are shared
            key = ("transfer", VERSION, msgspec.to_builtins(plan), draw, asked, seed)
            found.append(shop.kept(key, partial(_one, shop, plan, draw, asked, seed=seed)))
    mean_NH = np.mean([np.log(evaluate.softmax(np.array(one["logits"]))) for one in found], 0)
    clips = clips_of(shop, draw.corpus, plans[0].classes)
    place = {clip.name: n for n, clip in enumerate(clips)}
    return scored(mean_NH, [clips[place[name]] for name in found[0]["names"]], found[0]["heads"], plans[0].classes)


def _one(shop: Workshop, plan: Plan, draw: Draw, asked: Asked, *, seed: int) -> Mapping[str, Any]:
    """What one system says of the clips that are tested."""
    both = msgspec.structs.replace(plan, corpora=(*plan.corpora, draw.corpus), onnx=False)
    prepared = runs.prepare(both, shop.corpora, shop.cache / "features", Silent(), seed=seed)
    system, examples = prepared.system, prepared.examples
    theirs, tested = parted(examples.clips, draw)
    others = [n for n, clip in enumerate(examples.clips) if clip.corpus != draw.corpus] if asked.source else []
    optimiser = plan.optimiser
    if asked.source:
        system, about = saved.load(shop.run(plan, "", seed))
        optimiser = msgspec.structs.replace(optimiser, **TUNING)
        if asked.adapted:
            shots = [examples.clips[n] for n in theirs]
            system, _ = adapt.adapted(system, about, shots, adapt.Adapting(part="all"), seed=seed)
        system.fit_inputs = _as_it_was  # z-scores stay those of the source
    examples = replace(examples, indices=[*others, *theirs])
    if asked.target and not asked.adapted:
        out = Path(mkdtemp(prefix="tuning", dir=shop.cache))
        try:
            tuning = msgspec.structs.replace(both, optimiser=optimiser)
            system, examples, _ = train(
                system.train(), examples, Validation(), tuning, out, watcher=Silent(), seed=seed
            )
        finally:
            shutil.rmtree(out)
    system.eval()
    known_NX = _known(examples, tested, draw.seed) if asked.heard else None
    logits_NH = logits_of(system, examples, tested, known_NX=known_NX)
    names = [examples.clips[n].name for n in tested]
    return {"logits": logits_NH.tolist(), "names": names, "heads": list(examples.heads)}


def _as_it_was(given: object) -> None:
    """Takes nothing from it."""


def _known(examples: Any, tested: Sequence[int], seed: int) -> torch.Tensor:
    """[N, X]: the sum of what a speaker's earlier clips told."""
    before = earlier(examples.clips, tested, seed)
    return torch.stack([examples.clean_NX[before[n]].sum(0) for n in tested])


def machine(
    shop: Workshop, draw: Draw, asked: Asked, *, opensmile: bool, source: Sequence[str], classes: Sequence[str]
) -> Mapping[str, Any]:
    """The score of a linear support vector machine on functionals of whole clips."""
    try:
        from sklearn.svm import SVC  # noqa: PLC0415 - only here, if somebody installed it
    except ModuleNotFoundError as error:
        raise MissingError("the rows svm_... need a package: `pip install scikit-learn`") from error
    clips, rows, net = [], [], WholeManner()
    for corpus in (*source, draw.corpus):
        own = clips_of(shop, corpus, classes)
        if corpus != draw.corpus:
            own = own[:: max(1, -(-len(own) // MOST_OF_A_CORPUS))]
        clips += own
        rows.append(functionals(own, shop.cache) if opensmile else _manner(shop, own, net, fit=corpus == source[0]))
    theirs, tested = parted(clips, draw)
    trained = [n for n, clip in enumerate(clips) if clip.corpus != draw.corpus] + theirs
    x_NF = _less_usual(np.concatenate(rows), clips, trained, tested, draw.seed if asked.heard else None)
    true_N = np.array([classes.index(clip.emotion) for clip in clips])
    weight_N = np.where([clips[n].corpus == draw.corpus for n in trained], TARGET_SHARE / len(theirs), 0.0)
    weight_N[weight_N == 0.0] = (1.0 - TARGET_SHARE) / (len(trained) - len(theirs))
    products = x_NF[trained] @ x_NF[trained].T
    fitted = SVC(C=PENALTY, kernel="precomputed", class_weight="balanced")
    fitted.fit(products, true_N[trained], sample_weight=weight_N * len(trained))
    said = fitted.predict(x_NF[tested] @ x_NF[trained].T)
    told: dict[str, Any] = msgspec.to_builtins(
        scored(np.eye(len(classes))[said], [clips[n] for n in tested], tuple(classes), classes)
    )
    return told


def _manner(shop: Workshop, clips: Sequence[Clip], net: WholeManner, fit: bool) -> Array:
    """[N, F], as they come. fit: these clips tell what is usual of a hop."""
    ratios, cache = {"logmel": 1, "prosody": 4}, FeatureCache(shop.cache / "features")
    take = TakeFeatures.of(by_front(tuple(ratios), clips, clean_take(), cache, None), ratios)
    out = np.zeros((len(clips), MANNER_WIDTH), np.float32)
    with torch.inference_mode():
        if fit:
            some = np.random.default_rng(0).permutation(len(clips))[:FITTED_ON]
            net.fit(sound_of(take, ratios, some, take.lengths[some]))
        for some in ordered(take.lengths, 32):
            out[some] = net(sound_of(take, ratios, some, take.lengths[some])).numpy()
    return out


def _less_usual(
    x_NF: Array, clips: Sequence[Clip], trained: Sequence[int], tested: Sequence[int], seed: int | None
) -> Array:
    """z-scores; with a seed against the speaker's usual: of those trained on over all, of those tested over earlier clips."""
    z_NF = (x_NF - x_NF[trained].mean(0)) / (x_NF[trained].std(0) + 1e-6)
    z_NF = np.asarray(np.clip(np.nan_to_num(z_NF), -4.0, 4.0))
    if seed is None:
        return z_NF
    of: dict[tuple[str, str], list[int]] = {}
    for n in trained:
        of.setdefault(clips[n].who, []).append(n)
    before = {n: own for own in of.values() for n in own} | earlier(clips, tested, seed)
    usual_NF = np.stack([z_NF[before[n]].sum(0) / (len(before[n]) + PRIOR_CLIPS) for n in range(len(clips))])
    return np.asarray(z_NF - usual_NF)
