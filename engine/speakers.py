"""What is known of who speaks, for models that answer better for a voice they have heard before. Pure; in memory only.

Each utterance tells such a model X numbers of its speaker (models/systems.py), the first of which is 1. What is known is their
sum over earlier utterances, so its first number counts them. These numbers describe a voice: they go to the worker that needs
them, and nowhere else (docs/privacy.md).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from clser.engine.records import Utterance, seconds
from clser.engine.track import Track, Voice

MOST_KEPT = 10_000

Numbers = NDArray[np.float32]


class SpeakerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool = True
    """Off, every utterance is answered as that of somebody unknown, and what was known is forgotten."""
    learns: bool = True
    """Off, what is known by then goes on counting, and stays as it is."""
    forget_after_s: Annotated[float, Meta(gt=0)] = 600.0
    """A speaker who was not heard for so long is forgotten."""
    most_utterances: Annotated[int, Meta(ge=1)] = 50
    """Beyond so many, older utterances fade."""


@dataclass(slots=True)
class _Known:
    sums: Numbers
    last_s: float


class Memory:
    """Sums by voice. Whose time it is, `now_s`, is one and the same for all that are shared, and each stream's own else."""

    def __init__(self, config: SpeakerConfig, numbers: int, most: int = MOST_KEPT) -> None:
        self._numbers, self._most = numbers, most
        self._known: dict[Voice, _Known] = {}  # who was heard longest ago stands first
        self.configure(config)

    def configure(self, config: SpeakerConfig) -> None:
        self._config = config
        if not config.enabled:
            self._known.clear()

    @property
    def learns(self) -> bool:
        return self._config.enabled and self._config.learns

    def __len__(self) -> int:
        return len(self._known)

    def sums(self, voice: Voice, now_s: float) -> Numbers | None:
        """What is known; None of somebody unknown."""
        self.expire(voice, now_s)
        known = self._known.get(voice)
        return None if known is None else known.sums

    def utterances(self, voice: Voice) -> float:
        """How many are known by, those that fade as parts of one."""
        return float(self._known[voice].sums[0]) if voice in self._known else 0.0

    def learn(self, voice: Voice, told: Numbers, now_s: float) -> None:
        """An utterance that was worth it has ended."""
        assert told.shape == (self._numbers,)
        if not self.learns:
            return
        before = self.sums(voice, now_s)
        sums = told.copy() if before is None else before + told
        most = np.float32(self._config.most_utterances)
        if sums[0] > most:
            sums *= most / sums[0]
        self._known.pop(voice, None)
        self._known[voice] = _Known(sums, now_s)
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]

    def forget_all(self) -> None:
        """What utterances tell is told otherwise from now on."""
        self._known.clear()

    def forget(self, voice: Voice) -> None:
        self._known.pop(voice, None)

    def expire(self, voice: Voice, now_s: float) -> None:
        """Forget the voice if it was silent for too long."""
        if voice in self._known and now_s - self._known[voice].last_s > self._config.forget_after_s:
            del self._known[voice]

    def sweep(self, now_s: float) -> None:
        """Forget those of the shared ones who were silent for too long."""
        shared = (voice for voice in self._known if voice.shared)
        old = []
        for voice in shared:
            if now_s - self._known[voice].last_s <= self._config.forget_after_s:
                break
            old.append(voice)
        for voice in old:
            del self._known[voice]


class Acquaintance:
    """Whom one stream hears, as the memory knows them."""

    def __init__(self, memory: Memory, stream: str, speaker: str | None, cut_from: int) -> None:
        """`cut_from`: frames that the model has heard of each utterance that is ever cut."""
        self._memory, self._stream, self._cut_from = memory, stream, cut_from
        self.voice = self._of(speaker)

    @property
    def learns(self) -> bool:
        return self._memory.learns

    @property
    def utterances(self) -> float:
        return self._memory.utterances(self.voice)

    def introduce(self, track: Track, now_s: float) -> bytes:
        """What the model is given of the utterance's speaker before its first frame: the same each time it is heard."""
        if track.given is None:
            known = None
            if track.voice is not None:
                known = self._memory.sums(track.voice, _time(track.voice, track.start, now_s))
            track.given = b"" if known is None else known.tobytes()
        return track.given

    def up_to_cut(self, track: Track, frames: int) -> int:
        """So many of these frames that a row ends where a cut utterance is learnt from."""
        left = self._cut_from - track.sent
        return left if 0 < left < frames else frames

    def note(self, track: Track, told: Numbers) -> None:
        """What the utterance told by the frames that were answered. Kept of the newest, and of where a cut may fall."""
        kept = {frame: numbers for frame, numbers in track.told.items() if frame == self._cut_from}
        track.told = {**kept, len(track.answers): told.copy()}

    def learn(self, track: Track, utterance: Utterance, frames: int, now_s: float) -> None:
        """The utterance's final is out, after so many frames. Of one that was cut, the model had heard more by then, or not:
        it is learnt from up to where no cut can fall before."""
        told = track.told.get(self._cut_from if utterance.reason == "longest" else frames)
        if told is not None and track.voice is not None:
            self._memory.learn(track.voice, told, _time(track.voice, utterance.end_sample, now_s))

    def turn_to(self, speaker: str | None, tracks: Iterable[Track]) -> None:
        """Somebody else speaks from here on. Who has no name cannot come back: he is forgotten, and so is whoever had a name
        where none is given."""
        if speaker is None or not self.voice.shared:
            self._memory.forget(self.voice)
            for track in tracks:
                track.voice = None  # nothing is learnt from what is still to be answered
        self.voice = self._of(speaker)

    def look(self, at_sample: int) -> None:
        """The stream has come so far."""
        if not self.voice.shared:
            self._memory.expire(self.voice, seconds(at_sample))

    def close(self) -> None:
        if not self.voice.shared:
            self._memory.forget(self.voice)

    def _of(self, speaker: str | None) -> Voice:
        return Voice(self._stream, shared=False) if speaker is None else Voice(speaker, shared=True)


def _time(voice: Voice, sample: int, now_s: float) -> float:
    """Captured sound counts for a stream's own voice; a shared one is heard in many streams, so there the clock does."""
    return now_s if voice.shared else seconds(sample)
