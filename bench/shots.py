"""A few labelled clips of a corpus that a system never heard: who is drawn from, who is tested on, what that gains.

Speakers are dealt into two halves by seed: shots come from the one, tests from the other, whatever the number of shots.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from clser.bench.workshop import Score, Workshop, together
from clser.models import evaluate, judged, measures, saved
from clser.models.adapt import Adapting, adapted
from clser.models.data.clips import Clip
from clser.models.data.corpora import read_speech


class Target(NamedTuple):
    """What a system is brought to, and by how much."""

    corpus: str
    classes: tuple[str, ...]
    shots: int
    """A class; 0: none, the system as it is."""
    unlabelled: bool = False
    """The other clips of those who give shots are heard too, without their labels."""


class Drawn(NamedTuple):
    """Places among a corpus's clips."""

    shots: tuple[int, ...]
    others: tuple[int, ...]
    """Of the speakers with shots: speech that may be heard without its labels."""
    tested: tuple[int, ...]


def clips_of(shop: Workshop, corpus: str, classes: Sequence[str]) -> list[Clip]:
    """A corpus's clips of these classes."""
    return [clip for clip in read_speech(shop.corpora, [corpus], check=False) if clip.emotion in classes]


def draw(clips: Sequence[Clip], shots: int, seed: int, share: float = 0.5) -> Drawn:
    """`shots` clips of each class, of `share` of the speakers; 0: all of theirs, which are then all shots."""
    random = np.random.default_rng(seed)
    whos = sorted({clip.who for clip in clips})
    theirs = {whos[n] for n in random.permutation(len(whos))[: max(1, round(share * len(whos)))]}
    own = [n for n, clip in enumerate(clips) if clip.who in theirs]
    chosen = own
    if shots:
        order = [own[n] for n in random.permutation(len(own))]
        classes = sorted({clip.emotion for clip in clips})
        chosen = [n for c in classes for n in [m for m in order if clips[m].emotion == c][:shots]]
    return Drawn(
        tuple(sorted(chosen)),
        tuple(sorted(set(own) - set(chosen))),
        tuple(n for n, clip in enumerate(clips) if clip.who not in theirs),
    )


def scored(logits_NH: NDArray[Any], clips: Sequence[Clip], heads: Sequence[str], classes: Sequence[str]) -> Score:
    """Every other class ruled out."""
    places = [heads.index(name) for name in classes]
    return together([measures.one(evaluate.restrict(logits_NH, places), clips, heads, places)])


def few_shots(shop: Workshop, folder: Path, target: Target, seed: int, asked: Adapting | None = None) -> Score:
    """A trained system adapted to shots of some speakers, tested on the others."""
    asked = asked or Adapting()

    def make() -> dict[str, Any]:
        system, about = saved.load(folder)
        clips = clips_of(shop, target.corpus, target.classes)
        drawn = draw(clips, target.shots or 1, seed)
        if target.shots:
            extra = [clips[n] for n in drawn.others] if target.unlabelled else ()
            system, about = adapted(system, about, [clips[n] for n in drawn.shots], asked, extra, seed=seed)
        tested = [clips[n] for n in drawn.tested]
        logits_NH, _ = judged.logits(system, about, tested)
        return dict(msgspec.to_builtins(scored(logits_NH, tested, about.heads, target.classes)))

    # The weights' own digest: a folder that was made anew is another.
    key = ("few", saved.about_of(folder).digest, target, seed, msgspec.to_builtins(asked))
    return msgspec.convert(shop.kept(key, make), Score)
