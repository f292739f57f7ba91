"""Which recordings of a manifest a system is fitted to, and which are left to test it on: other speakers', where that can be."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clser.models.data.clips import Clip
from clser.models.errors import GivenError


class Drawn(NamedTuple):
    """Places among the clips."""

    shots: tuple[int, ...]
    tested: tuple[int, ...]
    apart: bool
    """No speaker is in both."""


def draw(
    clips: Sequence[Clip], *, shots: int | None = None, share: float | None = None, speakers: float | None = None,
    seed: int = 0,
) -> Drawn:  # fmt: skip
    """So many clips of each class; a share of each class's; or all of a share of the speakers. Exactly one is given, unless
    there are no clips.

    Clips of speakers who gave none are tested on; where there are no such speakers, the clips that are left. Shots come from
    as few speakers as have enough of every class, so that others are left.
    """
    if not clips:
        return Drawn((), (), True)
    random = np.random.default_rng(seed)
    order = [int(n) for n in random.permutation(len(clips))]
    if speakers is not None:
        chosen = _of_speakers(clips, order, speakers)
    elif shots is not None:
        chosen = _of_each(clips, _few_speakers(clips, order, shots), shots)
    else:
        assert share is not None
        chosen = [n for own in _classes(clips, order).values() for n in own[: max(1, round(share * len(own)))]]
    theirs = {clips[n].who for n in chosen}
    known = all(clip.speaker for clip in clips)
    others = [n for n in range(len(clips)) if known and clips[n].who not in theirs]
    left = others or sorted(set(range(len(clips))) - set(chosen))
    return Drawn(tuple(sorted(chosen)), tuple(left), bool(others))


def _classes(clips: Sequence[Clip], order: Sequence[int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for n in order:
        found.setdefault(clips[n].emotion, []).append(n)
    return found


def _of_each(clips: Sequence[Clip], order: Sequence[int], shots: int) -> list[int]:
    of = _classes(clips, order)
    short = {name: len(own) for name, own in sorted(of.items()) if len(own) < shots}
    if short:
        raise GivenError(
            f"--shots {shots}: too few clips of {', '.join(f'{name} ({many})' for name, many in short.items())}; "
            "give more of them, a smaller number, or leave the class out with --classes"
        )
    return [n for own in of.values() for n in own[:shots]]


def _few_speakers(clips: Sequence[Clip], order: Sequence[int], shots: int) -> list[int]:
    """The clips of as many speakers, half of them at least, as have enough of every class; all, where speakers are not known."""
    whos = list(dict.fromkeys(clips[n].who for n in order))
    if len(whos) < 2 or not all(clip.speaker for clip in clips):
        return list(order)
    classes = {clip.emotion for clip in clips}
    for many in range((len(whos) + 1) // 2, len(whos) + 1):
        theirs = set(whos[:many])
        own = [n for n in order if clips[n].who in theirs]
        of = _classes(clips, own)
        if of.keys() == classes and min(map(len, of.values())) >= shots:
            return own
    return list(order)


def _of_speakers(clips: Sequence[Clip], order: Sequence[int], share: float) -> list[int]:
    if not all(clip.speaker for clip in clips):
        raise GivenError(f"--speakers {share}: not every clip has a speaker; fill in `speaker`, or give --share")
    whos = list(dict.fromkeys(clips[n].who for n in order))
    theirs = set(whos[: max(1, round(share * len(whos)))])
    return [n for n in order if clips[n].who in theirs]
