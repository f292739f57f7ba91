"""SERE's table: six pairs of languages, five labelled clips a class in the source, nothing labelled in the target."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from clser.bench.functionals import functionals
from clser.bench.shots import clips_of, scored
from clser.bench.workshop import Claim, Row, Score, Wanted, Workshop, better, value
from clser.models import sere_run, systems
from clser.models.data.cache import FeatureCache, Take
from clser.models.data.clips import Clip, Sound
from clser.models.data.splits import grouped_folds
from clser.models.data.takes import clean_take
from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.sere_loss import Coarse, Shots, Transfer
from clser.models.sere_run import by_speaker, coarse_of, labels_of, others, shots_of
from clser.models.sere_run import rows as some

Array = NDArray[Any]

ABOUT = (
    "SERE (2026): few labels in one language, none in another. B EmoDB, C CASIA, O EMOVO; BC is EmoDB to CASIA. "
    "5 labelled clips a class in the source; the target's other speakers are heard without labels, and its held-out ones tested"
)
CORPORA = {"B": "emodb", "C": "casia", "O": "emovo"}
FOUR = ("anger", "happiness", "neutral", "sadness")
MORE = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
SHOTS, FOLDS = 5, 5
CUT_S = 2.0
"""EmoDB's fear and disgust are cut to this: with them, all of it is."""
PENALTY = 1e-4

SPEECH = {
    "speech": "hub:clser/voice_licensed", "speech_width": 128, "width": 64, "every": 16, "gate_bias": -2.0,
}  # fmt: skip
TWO = {**SPEECH, "unlabelled": "mfcc_40_20"}
LABELS = {"gpr": 0.0, "dir": 0.0}
SOURCE_ONLY = {**LABELS, "normal": "source"}
HERE = "frozen frames of our voice_licensed in 0.32 s, width 64, 60 steps; 4 classes"
BY_SPEAKER = "frames by the z-scores of each speaker's own clips, tested ones too, so who speaks is known"
ON = "5 or 6 classes, wav2vec2-base and large encoders"

PUBLISHED: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "full": (48.68, 69.28, 49.86, 58.43, 48.55, 51.98),
        "without_dir": (42.36, 65.22, 46.98, 55.65, 43.37, 43.09),
        "without_gpr": (44.90, 67.50, 46.52, 55.03, 45.29, 46.50),
        "without_both": (41.77, 65.05, 43.12, 51.35, 39.54, 41.60),
        "dan": (36.30, 56.72, 35.53, 44.24, 36.51, 32.42),
    }
)
HELD_OUT, TRANSDUCTIVE = "uar", "uar transductive"
PAIRS = ("BC", "CB", "BO", "OB", "CO", "OC")


class Kind(NamedTuple):
    """What stands behind a row."""

    settings: dict[str, Any]
    asked: dict[str, Any]
    says: str
    """What differs from the row `full`."""
    held: bool = True
    """Tested on speakers held out; all are tested after adaptation to all of the target's speech (transductive)."""
    more: bool = False
    """All classes that both corpora have, rather than four."""
    speakers: bool = False
    """By the z-scores of each speaker's own speech."""


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "full": Kind(SPEECH, {}, "as docs/systems.md says"),
        "without_dir": Kind(SPEECH, {"dir": 0.0}, "lambda 2 = 0"),
        "without_gpr": Kind(SPEECH, {"gpr": 0.0}, "lambda 1 = 0"),
        "without_both": Kind(SPEECH, LABELS, "cross-entropy alone, frames by each corpus's own z-scores"),
        "source_only": Kind(SPEECH, SOURCE_ONLY, "cross-entropy alone, the source's z-scores: nothing of the target"),
        "dan": Kind(SPEECH, {**LABELS, "mmd": 1.0}, "multi-kernel MMD on the pooled vectors in the losses' place"),
        "by_speaker": Kind(SPEECH, {}, BY_SPEAKER, speakers=True),
        "by_speaker_without_both": Kind(SPEECH, LABELS, f"cross-entropy alone; {BY_SPEAKER}", speakers=True),
        "by_speaker_balanced": Kind(
            SPEECH, {"balanced": True}, f"classes taken to be equally frequent; {BY_SPEAKER}", speakers=True
        ),
        "balanced": Kind(SPEECH, {"balanced": True}, "classes taken to be equally frequent in the target", held=False),
        "without_dynamics": Kind({**SPEECH, "dynamics": False}, {}, "frames alone", held=False),
        "chain": Kind(SPEECH, {"follow": "chain"}, "the target's classes by the chain, not by prototypes", held=False),
        "heterogeneous": Kind(TWO, {}, "unlabelled speech by our MFCC, and so the answer", held=False),
        "heterogeneous_both": Kind(
            {**TWO, "answer": "both"}, {}, "unlabelled speech by our MFCC; the answer from both encoders", held=False
        ),
        "same_mfcc": Kind({**SPEECH, "speech": "mfcc_40_20", "speech_width": 0}, {}, "our MFCC alone", held=False),
        "all_classes": Kind(SPEECH, {}, f"5 or 6 classes, EmoDB cut to {CUT_S:g} s", held=False, more=True),
        "all_classes_source_only": Kind(
            SPEECH, SOURCE_ONLY, f"as source_only; 5 or 6 classes, EmoDB cut to {CUT_S:g} s", held=False, more=True
        ),
    }
)
OPENSMILE = "svm_opensmile"
OPENSMILE_HERE = "ComParE 2016 functionals by each corpus's z-scores, a linear machine on the same shots; 4 classes"


class Task(NamedTuple):
    """A pair of corpora, and what is labelled in the first."""

    source: str
    target: str
    classes: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class Sides:
    """The clips of corpora with their features, read once."""

    shop: Workshop
    read: dict[tuple[str, tuple[str, ...]], list[Clip]] = field(default_factory=dict)
    heard: dict[Any, Coarse] = field(default_factory=dict)

    def clips(self, corpus: str, classes: tuple[str, ...]) -> list[Clip]:
        """Those of these classes."""
        key = corpus, classes
        if key not in self.read:
            self.read[key] = clips_of(self.shop, corpus, classes)
        return self.read[key]

    def coarse(self, corpus: str, classes: tuple[str, ...], kind: Kind) -> Coarse:
        """What such a system is given of them."""
        settings = kind.settings
        key = corpus, classes, tuple(sorted(settings.items())), kind.speakers
        if key not in self.heard:
            take = _cut(clean_take()) if corpus == "emodb" and classes != FOUR else clean_take()
            system = systems.build("sere", settings, classes)
            cache = FeatureCache(self.shop.cache / "features")
            coarse = coarse_of(system, self.clips(corpus, classes), cache, lambda line: None, take)
            if kind.speakers:
                coarse = by_speaker(coarse, self.clips(corpus, classes), (settings["speech"],))
            self.heard[key] = coarse
        return self.heard[key]

    def shots(self, task: Task) -> torch.Tensor:
        """Places of the labelled clips in the source."""
        return shots_of(self.clips(task.source, task.classes), task.classes, SHOTS, task.seed)

    def labels(self, task: Task) -> torch.Tensor:
        """Their classes."""
        clips = self.clips(task.source, task.classes)
        return labels_of([clips[n] for n in self.shots(task).tolist()], task.classes)


def rows(shop: Workshop, wanted: Wanted) -> Iterator[Row]:
    """Table 1 and 2, six pairs of twelve."""
    sides = Sides(shop)
    for name in (*KINDS, OPENSMILE):
        if wanted(name):
            yield from _row(shop, sides, name)


def _row(shop: Workshop, sides: Sides, name: str) -> Iterator[Row]:
    kind = KINDS.get(name)
    here = OPENSMILE_HERE if kind is None else f"{kind.says}; {HERE}"
    if kind is not None and kind.more:
        here = here.removesuffix("; 4 classes")
    for whole in (False, True) if kind is None or kind.held else (True,):
        metric = TRANSDUCTIVE if whole else HELD_OUT
        published = PUBLISHED.get(name, ()) if not whole else ()
        found = [[_score(shop, sides, name, pair, seed, whole=whole) for seed in shop.seeds] for pair in PAIRS]
        for n, (pair, scores) in enumerate(zip(PAIRS, found, strict=True)):
            told = published[n] if published else None
            values = tuple(score.uar for score in scores)
            yield Row(
                "1", name, pair, metric, values, scores[0].clips, scores[0].speakers, told, ON if told else "", here
            )
        means = tuple(float(np.mean([scores[n].uar for scores in found])) for n in range(len(shop.seeds)))
        clips, speakers = (sum(getattr(scores[0], part) for scores in found) for part in ("clips", "speakers"))
        told = round(float(np.mean(published)), 2) if published else None
        yield Row("1", name, "mean of six", metric, means, clips, speakers, told, ON if told else "", here)


def _score(shop: Workshop, sides: Sides, name: str, pair: str, seed: int, *, whole: bool) -> Score:
    kind = KINDS.get(name)
    about = OPENSMILE if kind is None else [*kind[:2], kind.more, kind.speakers]
    make = partial(_made, sides, name, pair, seed, whole=whole)
    return msgspec.convert(shop.kept(("sere", 4, about, pair, seed, whole), make), Score)


def _made(sides: Sides, name: str, pair: str, seed: int, *, whole: bool) -> dict[str, Any]:
    kind = KINDS.get(name)
    source, target = (CORPORA[letter] for letter in pair)
    classes: tuple[str, ...] = FOUR
    if kind is not None and kind.more:
        both = [{clip.emotion for clip in sides.clips(corpus, MORE)} for corpus in (source, target)]
        classes = tuple(emotion for emotion in MORE if emotion in both[0] & both[1])
    task = Task(source, target, classes, seed)
    tested = sides.clips(target, classes)
    logits_NH = np.zeros((len(tested), len(classes)), np.float32)
    for adapt, test in _parts(tested, whole=whole):
        said_NH = _machine(sides, task, adapt) if kind is None else _crossed(sides, task, kind, adapt)
        logits_NH[test] = said_NH[test]
    return dict(msgspec.to_builtins(scored(logits_NH, tested, classes, classes)))


def _parts(clips: Sequence[Clip], *, whole: bool) -> list[tuple[Array, Array]]:
    """Whose speech is heard without labels, and who is tested, by their places."""
    if whole:
        return [(np.arange(len(clips)), np.arange(len(clips)))]
    speakers = len({clip.who for clip in clips})
    folds = grouped_folds(clips, min(FOLDS, speakers), valid=0.0)
    return [(np.array(fold.train), np.array(fold.test)) for fold in folds]


def _crossed(sides: Sides, task: Task, kind: Kind, adapt: Array) -> Array:
    """[N, H] of all of the target's clips, by a system that was adapted to some of them."""
    source, target = (sides.coarse(corpus, task.classes, kind) for corpus in task[:2])
    torch.manual_seed(task.seed)
    system = systems.build("sere", kind.settings, task.classes)
    chosen = sides.shots(task)
    shots, asked = Shots(some(source, chosen), sides.labels(task)), Transfer(**kind.asked)
    rest = some(source, others(chosen, len(sides.clips(task.source, task.classes))))
    sere_run.transfer(system, shots, rest, some(target, torch.from_numpy(adapt)), asked, seed=task.seed)
    return np.asarray(sere_run.logits_of(system, target))


def _machine(sides: Sides, task: Task, adapt: Array) -> Array:
    """The same, by openSMILE and a linear machine."""
    machines = import_module("sklearn.svm")
    x_NF, x_MF = (functionals(sides.clips(corpus, task.classes), sides.shop.cache) for corpus in task[:2])
    z_NF = (x_NF - x_NF.mean(0)) / (x_NF.std(0) + 1e-6)
    z_MF = (x_MF - x_MF[adapt].mean(0)) / (x_MF[adapt].std(0) + 1e-6)
    machine = machines.SVC(C=PENALTY, kernel="linear", class_weight="balanced")
    machine.fit(z_NF[sides.shots(task).numpy()], sides.labels(task).numpy())
    return np.asarray(np.eye(len(task.classes))[machine.predict(z_MF)], np.float32)


def _cut(take: Take) -> Take:
    def change(sound: Sound, index: int, random: np.random.Generator) -> Sound:
        assert take.change is not None
        return take.change(sound, index, random)[: round(CUT_S * SAMPLE_RATE_HZ)]

    return Take(take.number, f"{take.config}, no longer than {CUT_S} s", change)


def claims(found: Sequence[Row]) -> list[Claim]:
    """Read off the means."""

    def mean(name: str, metric: str) -> float:
        return value(found, name, "mean of six", metric)

    def beats(one: str, other: str, said: str, metric: str = HELD_OUT) -> Claim:
        return better(found, said, one, other, metric=metric, but="mean of six")

    full, alone = mean("full", HELD_OUT), mean("source_only", HELD_OUT)
    gain, known = full - alone, mean("by_speaker_balanced", HELD_OUT) - alone
    return [
        Claim("a mean of 42 or more on six pairs", full >= 42.0, f"{full:.1f}; 4 classes here"),
        Claim("4 points or more above the same shots alone", gain >= 4.0, f"{gain:+.1f} points"),
        Claim("the same where who speaks is known", known >= 4.0, f"{known:+.1f} points, classes taken to be even"),
        beats("full", "without_both", "resonance helps beside each corpus's own z-scores"),
        beats("by_speaker", "by_speaker_without_both", "resonance helps beside each speaker's own z-scores"),
        beats(
            "by_speaker_balanced", "by_speaker_without_both", "and more where classes are taken to be equally frequent"
        ),
        beats("full", "without_dir", "domain-invariant resonance (L_DIR) helps"),
        beats("full", "without_gpr", "pulling to prototypes (L_GPR) helps"),
        beats("full", "dan", "it beats DAN"),
        beats("full", "svm_opensmile", "it beats openSMILE and a linear machine with the same shots"),
        beats("full", "without_dynamics", "dynamics help", TRANSDUCTIVE),
        beats("heterogeneous", "full", "another encoder for unlabelled speech helps", TRANSDUCTIVE),
        beats("heterogeneous_both", "full", "answering from two encoders helps", TRANSDUCTIVE),
    ]
