"""Clips put one after another: more of the same emotion where there is little (stacking), or emotion amid neutral speech."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from clser.models.data.clips import Clip, Sound
from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.plan import Stacking

LONGEST = 10
"""Where no clip fills a stack up at once, one of so many longest ones is taken, as the official code does."""
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

    def others(self, index: int, emotion: str | None = None) -> list[int]:
        """All other clips of the same emotion (or of the one named) and, if so set, speaker."""
        alike = self._alike.get(self._key(self.clips[index], emotion or self.clips[index].emotion), ())
        return [other for other in alike if other != index]

    def of(self, index: int, random: np.random.Generator, emotion: str | None = None) -> int | None:
        """One of the others; None if there is none."""
        others = self.others(index, emotion)
        return others[int(random.integers(len(others)))] if others else None

    def _key(self, clip: Clip, emotion: str) -> tuple[str, ...]:
        return (emotion, *clip.who) if self.same_speaker else (emotion, clip.corpus)


@dataclass(frozen=True, slots=True)
class Stacks:
    """Which clips come behind which (SDS): of the same label, until a stack is no longer short."""

    partners: Partners
    seconds: Sequence[float] | np.ndarray[Any, Any]
    """How long each clip is."""
    how: Stacking
    chance: float
    _own: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_own", frozenset(self.partners.indices))

    def behind(self, index: int, random: np.random.Generator) -> tuple[int, ...]:
        """The clips behind this one, none of them twice: none at all where it is long, where chance leaves it alone, or
        where it is no clip to train on."""
        long_s, enough_s = float(self.seconds[index]), self.how.shorter_than_s
        if index not in self._own or long_s >= enough_s or random.random() >= self.chance:
            return ()
        left = self.partners.others(index)
        chosen: list[int] = []
        while left and long_s < enough_s and len(chosen) < self.how.most:
            other = self._choice(left, enough_s - long_s, random)
            left.remove(other)
            chosen.append(other)
            long_s += float(self.seconds[other])
        return tuple(chosen)

    def planned(self, number: int) -> dict[int, tuple[int, ...]]:
        """For take `number`, the clips that have any behind them; the same every time."""
        drawn = {n: self.behind(n, _generator(number, self.partners.clips[n])) for n in self.partners.indices}
        return {n: behind for n, behind in drawn.items() if behind}

    def _choice(self, left: Sequence[int], lacking_s: float, random: np.random.Generator) -> int:
        if self.how.choice == "filling":
            filling = [n for n in left if self.seconds[n] >= lacking_s]
            left = filling or sorted(left, key=lambda n: float(self.seconds[n]), reverse=True)[:LONGEST]
        return left[int(random.integers(len(left)))]


@dataclass(frozen=True, slots=True)
class Stacked:
    """Puts the planned clips' sounds behind a clip's. Part of the `change` of a `Take`; it looks at other clips, so that
    take is not `alone`."""

    behind: Mapping[int, tuple[int, ...]]
    sound_of: Callable[[int], Sound]
    breath: bool = True
    """A pause between, and levels that go together."""

    @property
    def digest(self) -> str:
        """Changes with what is put behind what."""
        return blake2b(repr((sorted(self.behind.items()), self.breath)).encode(), digest_size=8).hexdigest()

    def __call__(self, sound: Sound, index: int, random: np.random.Generator) -> Sound:
        for other in self.behind.get(index, ()):
            after = self.sound_of(other)
            sound = joined(sound, after, random) if self.breath else np.concatenate((sound, after)).astype(np.float32)
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


def _generator(number: int, clip: Clip) -> np.random.Generator:
    name = repr((number, clip.who, clip.path.name, clip.start_s)).encode()
    return np.random.default_rng(int.from_bytes(blake2b(name, digest_size=8).digest()))
