"""Clips put one after another: more of the same emotion where there is little (stacking), or emotion amid neutral speech."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from clser.models.data.clips import Clip, Sound
from clser.models.features.constants import SAMPLE_RATE_HZ

GAP_S = (0.05, 0.4)
EVEN_DB = 6.0
"""The second is brought to within so much of the first one's level: another recording, not another distance."""


class Placed(NamedTuple):
    """A sound, and where in it the emotion is."""

    sound: Sound
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Partners:
    """Which clips may follow a clip. Only those given take part: give the clips to train on, never those to test."""

    clips: Sequence[Clip]
    indices: Sequence[int]
    same_speaker: bool = True
    _alike: dict[tuple[str, ...], list[int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index in sorted(self.indices):
            groups[self._key(self.clips[index], self.clips[index].emotion)].append(index)
        self._alike.update(groups)

    def of(self, index: int, random: np.random.Generator, emotion: str | None = None) -> int | None:
        """Another clip of the same emotion (or of the one named) and, if so set, speaker; None if there is none."""
        others = [
            other
            for other in self._alike.get(self._key(self.clips[index], emotion or self.clips[index].emotion), ())
            if other != index
        ]
        return others[int(random.integers(len(others)))] if others else None

    def _key(self, clip: Clip, emotion: str) -> tuple[str, ...]:
        return (emotion, *clip.who) if self.same_speaker else (emotion, clip.corpus)


@dataclass(frozen=True, slots=True)
class Stacking:
    """Appends clips of the same label to short ones, with some chance, until they are long (SDS).

    Can be the `change` of a `Take`; it looks at other clips, so that take is not `alone`.
    """

    partners: Partners
    sound_of: Callable[[int], Sound]
    chance: float = 0.4
    shorter_than_s: float = 4.0
    most: int = 1
    """Clips appended at most."""

    def __call__(self, sound: Sound, index: int, random: np.random.Generator) -> Sound:
        for _ in range(self.most):
            if len(sound) >= self.shorter_than_s * SAMPLE_RATE_HZ or random.random() >= self.chance:
                break
            other = self.partners.of(index, random)
            if other is None:
                break
            sound = joined(sound, self.sound_of(other), random)
        return sound


def joined(first: Sound, second: Sound, random: np.random.Generator) -> Sound:
    """One after the other, a breath between; the second is brought near the first one's level."""
    gap = np.zeros(round(float(random.uniform(*GAP_S)) * SAMPLE_RATE_HZ), np.float32)
    return np.concatenate((first, gap, _near(second, first))).astype(np.float32)


def amid_neutral(emotional: Sound, neutral: Sound, random: np.random.Generator) -> Placed:
    """Neutral speech and emotional speech of the same speaker in either order, and where the emotional part is."""
    neutral = _near(neutral, emotional)
    gap = np.zeros(round(float(random.uniform(*GAP_S)) * SAMPLE_RATE_HZ), np.float32)
    if random.random() < 0.5:
        return Placed(np.concatenate((emotional, gap, neutral)).astype(np.float32), 0, len(emotional))
    first = len(neutral) + len(gap)
    return Placed(np.concatenate((neutral, gap, emotional)).astype(np.float32), first, first + len(emotional))


def _near(sound: Sound, to: Sound) -> Sound:
    level, wanted = (float(np.square(s).mean()) if len(s) else 0.0 for s in (sound, to))
    if level == 0.0 or wanted == 0.0:
        return sound
    off_db = 10.0 * np.log10(level / wanted)
    over_db = off_db - np.clip(off_db, -EVEN_DB, EVEN_DB)
    return np.asarray(np.clip(sound * 10.0 ** (-over_db / 20.0), -1.0, 1.0), np.float32)
