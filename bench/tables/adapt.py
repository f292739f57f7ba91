"""Our own: a voice that never heard a language, fitted to a few clips of some of its speakers, tested on the others.

The default model's recipe without these corpora is `voice_licensed`. A row is a corpus and a number of shots; what a stranger's
clips score stands beside what they score once ten others of him were heard, since that is how an engine runs on.
"""

import functools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import torch

from clser.bench.shots import clips_of, draw
from clser.bench.workshop import Claim, Row, Wanted, Workshop, value
from clser.engine.shipped import folder
from clser.models import adapt, measures, saved
from clser.models.data.clips import Clip
from clser.models.labels import HEADS
from clser.models.saved import Trained

ABOUT = "Adapting the default model's recipe to corpora it never heard: a few shots, and unlabelled speech"

MODEL = "voice_licensed"
FOUR = ("anger", "happiness", "neutral", "sadness")
CORPORA: Mapping[str, Sequence[str]] = {"emodb": FOUR, "emovo": HEADS, "casia": HEADS}
"""With the classes that count: EmoDB's others are cut clips."""
SHOTS = (0, 1, 5, 10)
UNLABELLED = (0, 5)
DRAWS = 4
"""Of speakers and shots, for each seed: with few speakers, much hangs on who they are."""
HEARD = 10
"""Of a tested speaker, where he is known."""
LONGEST_S = 20.0
VERSION = 2
"""Counts up when the same settings would come to other figures."""
HERE = "voice_licensed (heard RAVDESS, nEMO, TESS); shots of half of the speakers, tested on the others"


def rows(shop: Workshop, wanted: Wanted) -> Iterator[Row]:
    """Four a corpus, each with the speakers' other clips as unlabelled speech beside it; every measure a row."""
    for shots in SHOTS:
        for unlabelled in (False, True) if shots in UNLABELLED else (False,):
            name = f"{shots}_shots" + ("_unlabelled" if unlabelled else "")
            if wanted(name):
                for corpus in CORPORA:
                    yield from _rows(shop, name, corpus, shots, unlabelled)


def _rows(shop: Workshop, name: str, corpus: str, shots: int, unlabelled: bool) -> Iterator[Row]:
    key = (
        "adapt",
        MODEL,
        saved.about_of(_model()).digest,
        corpus,
        shots,
        unlabelled,
        msgspec.to_builtins(adapt.Adapting()),
        VERSION,
    )
    found = [
        shop.kept((*key, seed), functools.partial(measured, shop, corpus, shots, unlabelled, seed))
        for seed in shop.seeds
    ]
    many = {"clips": found[0]["clips"], "speakers": found[0]["speakers"], "here": HERE}
    for metric, of in (("UAR", "uar"), ("UAR known", "known"), ("ECE", "ece"), ("seconds", "took_s")):
        if of != "took_s" or shots or unlabelled:
            yield Row("adapt", name, corpus, metric, tuple(each[of] for each in found), **many)


def measured(shop: Workshop, corpus: str, shots: int, unlabelled: bool, seed: int) -> dict[str, Any]:
    """The mean over some draws: in per cent, and the seconds that adapting took on one core, torch's import apart."""
    found = [_drawn(shop, corpus, shots, unlabelled, DRAWS * seed + n) for n in range(DRAWS)]
    return {name: statistics.fmean(each[name] for each in found) for name in ("uar", "known", "ece", "took_s")} | {
        name: found[0][name] for name in ("clips", "speakers")
    }


def _drawn(shop: Workshop, corpus: str, shots: int, unlabelled: bool, seed: int) -> dict[str, Any]:
    system, about = saved.load(_model())
    clips, heard, e_N1Y = _heard(shop, corpus)
    drawn = draw(clips, shots or 1, seed)
    given = [clips[n] for n in drawn.shots] if shots else []
    others = drawn.others if shots else (*drawn.shots, *drawn.others)
    extra = [clips[n] for n in others] if unlabelled else []
    began = time.perf_counter()
    if given or extra:
        system, about = adapt.adapted(system, about, given, None, extra, seed=seed)
    took_s = time.perf_counter() - began
    tested = [clips[n] for n in drawn.tested]
    # only what is told of speakers changes with unlabelled speech; all else that is answered from stays
    e_M1Y = _told(system, heard, drawn.tested) if unlabelled else e_N1Y[list(drawn.tested)]
    known_MX, first = _known(system, e_M1Y, tested, seed)
    stranger = _judged(system, about, e_M1Y, torch.zeros_like(known_MX), tested)
    rest = [n for n in range(len(tested)) if n not in first]
    known = _judged(system, about, e_M1Y[rest], known_MX[rest], [tested[n] for n in rest])
    return {
        "uar": stranger["uar"], "known": known["uar"], "ece": stranger["ece"], "took_s": took_s,
        "clips": stranger["clips"], "speakers": stranger["speakers"],
    }  # fmt: skip


def claims(found: Sequence[Row]) -> list[Claim]:
    """What was aimed at."""
    gain = value(found, "5_shots", metric="UAR") - value(found, "0_shots", metric="UAR")
    known = value(found, "5_shots", metric="UAR known") - value(found, "0_shots", metric="UAR known")
    more = value(found, "5_shots_unlabelled", metric="UAR") - value(found, "0_shots", metric="UAR")
    each = {c: value(found, "5_shots", c, "UAR") - value(found, "0_shots", c, "UAR") for c in CORPORA}
    worst = min(
        value(found, f"{n}_shots", c, m) - value(found, "0_shots", c, m)
        for n in SHOTS[1:]
        for c in CORPORA
        for m in ("UAR", "UAR known")
    )
    took_s = max(statistics.fmean(row.values) for row in found if row.metric == "seconds" and row.name == "5_shots")
    said = ", ".join(f"{corpus} {points:+.1f}" for corpus, points in each.items())
    return [
        Claim("five shots a class gain 5 points of UAR", gain >= 5.0, f"{gain:+.1f} in the mean ({said})"),
        Claim("so they do for speakers who were heard before", known >= 5.0, f"{known:+.1f} in the mean"),
        Claim("with unlabelled speech more", more > gain, f"{more:+.1f} in the mean"),
        Claim("few shots never harm by more than 2 points", worst >= -2.0, f"the worst mean of a row: {worst:+.1f}"),
        Claim(f"five shots take {LONGEST_S:.0f} s at most", took_s <= LONGEST_S, f"{took_s:.1f} s on one core"),
    ]


def _model() -> Any:
    return folder() / f"{MODEL}.safetensors"


@functools.cache
def _heard(shop: Workshop, corpus: str) -> tuple[list[Clip], adapt.Heard, torch.Tensor]:
    """A corpus, computed once: nothing of an adaptation changes what a system is given. What it tells, as it was shipped."""
    system, about = saved.load(_model())
    clips = clips_of(shop, corpus, [name for name in CORPORA[corpus] if name in about.heads])
    heard = adapt.Heard.of(system, clips)
    return clips, heard, _told(system, heard, range(len(clips)))


def _told(system: Any, heard: adapt.Heard, rows: Sequence[int]) -> torch.Tensor:
    """[N, 1, Y]: what these clips tell."""
    parts: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for some, batch in heard.batches(rows):
            e_B1Y, _ = system.hear(batch.given, system.start(len(some)), (batch.frames_B - 1).clamp_min(0)[:, None])
            parts |= dict(zip(some.tolist(), e_B1Y, strict=True))
    return torch.stack([parts[n] for n in rows])


def _known(system: Any, e_N1Y: torch.Tensor, tested: Sequence[Clip], seed: int) -> tuple[torch.Tensor, set[int]]:
    """What each clip's speaker is known by, and the clips that were heard for it."""
    random = np.random.default_rng(seed)
    sums, first = {}, set()
    for who in dict.fromkeys(clip.who for clip in tested):
        own = [n for n, clip in enumerate(tested) if clip.who == who]
        heard = [int(n) for n in random.permutation(own)[:HEARD]]
        sums[who] = e_N1Y[heard, 0, : system.speaker_numbers].sum(0)
        first |= set(heard)
    return torch.stack([sums[clip.who] for clip in tested]), first


def _judged(
    system: Any, about: Trained, e_N1Y: torch.Tensor, known_NX: torch.Tensor, clips: Sequence[Clip]
) -> dict[str, Any]:
    """In per cent, over the classes that occur."""
    with torch.inference_mode():
        logits_NH = about.calibration.apply(system.answer(e_N1Y, known_NX)[:, 0].numpy())
    places = sorted({about.heads.index(clip.emotion) for clip in clips})
    found = measures.one(logits_NH, clips, about.heads, places)
    return {**found, "uar": 100 * found["uar"], "ece": 100 * found["ece"]}
