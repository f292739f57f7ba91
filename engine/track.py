"""What a stream keeps of its utterances, and of the places where its sound breaks off. Data; stream.py moves it."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from clser.engine.records import Samples, Utterance
from clser.engine.segment import Event
from clser.engine.transcript import Transcript


class Voice(NamedTuple):
    """Whom the emotion model knows, or not: a speaker's name in all streams that give it (`shared`), or one stream."""

    name: str
    shared: bool


class Mark(Struct, frozen=True):
    """An answer that is due for `utterance`, as decided when the sound up to `position` had been heard."""

    utterance: Utterance
    position: int
    decided_s: float


@dataclass(slots=True)
class Track:
    """An utterance until its final is out: how far the emotion model has heard it, and which answer is due."""

    number: int
    speaker: str | None
    start: int
    grown: int
    """Its sound goes so far by now."""
    sent: int = 0
    """Frames handed to the model."""
    answers: list[NDArray[np.float32]] = field(default_factory=list)
    """Logits after each frame."""
    reached: int = 0
    """Answers there were before the last rewind."""
    asked: int = 0
    """After so many frames a model without a state was last asked for an answer of its own."""
    due: Mark | None = None
    """The newest replaces an older one."""
    revision: int = 0
    partials: int = 0
    """Partial answers that have been due."""
    seems_over: bool = False
    """The last answer given was a tentative."""
    fresh: bool = True
    sent_s: float = 0.0
    answered_s: float = 0.0
    withdrawn: bool = False
    voice: Voice | None = None
    """Who is learnt from it."""
    given: bytes | None = None
    """What the model was given of the speaker; empty where nothing was known, None before its first frame."""
    transcript: Transcript | None = None
    """What it says, where that is written down."""
    told: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    """What the utterance told of its speaker, by frames (speakers.py says which)."""

    def hear_again(self, frame: int = 0) -> None:
        """The model forgets this utterance, and hears it again from that frame on; nothing of it is under way."""
        self.reached = max(self.reached, len(self.answers))
        self.sent, self.asked, self.fresh = frame, 0, True
        del self.answers[frame:]


@dataclass(frozen=True, slots=True)
class Barrier:
    """Where the sound is not continuous, or ends: all before it is settled first."""

    at: int
    reason: str
    resume: int
    """The index from which sound goes on; `at` itself where nothing is missing."""
    last: bool = False
    speaker: str | None = None
    """Who speaks from here on, where the reason is `speaker`."""


class VadCut(NamedTuple):
    """Frames on their way to the voice activity network."""

    frames: int
    fresh: bool
    """Its state starts anew before them,"""
    pcm: Samples
    given: bytes = b""
    """or is this one."""
    keep: bool = False
    """Its state behind them is wanted."""


class VoiceCut(NamedTuple):
    """Frames on their way to the emotion model."""

    track: Track
    frames: int
    fresh: bool
    pcm: Samples
    given: bytes = b""
    """What is known of the speaker, where the utterance begins with them."""
    keep: bool = False
    """What the utterance tells of its speaker behind them is wanted."""


@dataclass(slots=True)
class Heard:
    """What became of a batch of voice activity: for each frame its end, level and probability, and the events."""

    frames: list[tuple[int, float, float]]
    events: list[Event]
