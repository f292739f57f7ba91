"""Answers on their way out, in two steps: the voice's at once, and what voice and words say together once the words are there. Pure.

    the voice has answered --no words yet--> out
                           --words---------> joined by a worker --> out
    a final                --words to come-> waits for them, `wait_ms` at most --> out; later ones amend it

One stream's. A newer partial answer takes the place of one that still waits; finals leave in their order.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from clser.engine.records import Samples, Stage
from clser.engine.track import Mark, Track
from clser.engine.transcript import Transcript

Numbers = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Reply:
    """One answer."""

    track: Track
    mark: Mark
    voice: Numbers
    """Logits of the voice alone."""
    frames: int
    """It is about so many of the model's frames."""
    sent_s: float = 0.0
    """When the last of its sound went to the model,"""
    answered_s: float = 0.0
    """and when the model had answered."""
    sound: Samples | None = None
    """Of a final whose model hears it again with the words."""
    kept: Samples | None = None
    """Of a final that is kept: its utterance's sound."""
    both: Numbers | None = None
    """What a worker made of voice and words."""
    joined_at: int = -1
    """The version of the transcript that is, or is being, joined with the voice."""
    joining: bool = False
    """A worker has it."""
    until_s: float = 0.0
    """A final waits so long for its text."""
    said_at: int = 0
    """The version of the transcript that went out with it."""

    @property
    def transcript(self) -> Transcript | None:
        return self.track.transcript

    @property
    def to_join(self) -> bool:
        """There are words that it is not joined with."""
        words = self.transcript
        return words is not None and words.told is not None and not words.gone and self.joined_at != words.version

    @property
    def written(self) -> bool:
        """Nothing more will be written of it, and what is written is joined with the voice."""
        over = self.transcript is None or self.transcript.complete
        return over and not self.joining and not self.to_join


class Replies:
    def __init__(self, wait_s: float, late_s: float) -> None:
        self._wait_s, self._late_s = wait_s, late_s
        self._growing: Reply | None = None  # a partial or tentative answer that waits for its words to be joined
        self._next: Reply | None = None  # a newer one, while a worker has that
        self._given: Reply | None = None  # the last of those that went out
        self._finals: deque[Reply] = deque()
        self._late: list[Reply] = []  # finals that went out with the voice alone, and whose words are still to come

    def configure(self, wait_s: float, late_s: float) -> None:
        """So long a final waits for its words from now on, and so long beyond that for an amendment."""
        self._wait_s, self._late_s = wait_s, late_s

    @property
    def finals_waiting(self) -> bool:
        return bool(self._finals)

    def __bool__(self) -> bool:
        return self._growing is not None or bool(self._finals) or bool(self._late)

    def take(self, reply: Reply, now_s: float) -> None:
        """The voice has answered."""
        if reply.mark.utterance.stage == "final":
            reply.until_s = now_s + self._wait_s
            self._finals.append(reply)
            self.forget(reply.track)
        elif self._growing is not None and self._growing.joining:
            self._next = reply  # were it to take its place now, none might ever come out when there is much to do
        else:
            self._growing = reply

    def forget(self, track: Track) -> None:
        """What was still to be said of it is not, since its final is or since it was no speech."""
        if self._growing is not None and self._growing.track is track:
            self._growing, self._next = self._next, None
        if self._growing is not None and self._growing.track is track:
            self._growing = None
        if self._given is not None and self._given.track is track:
            self._given = None

    def clear(self) -> None:
        self._growing = self._next = self._given = None
        self._finals.clear()
        self._late.clear()

    def landed(self, transcript: Transcript) -> None:
        """Other words have come: of an utterance that goes on, what was answered last is answered again."""
        given = self._given
        if self._growing is None and given is not None and given.transcript is transcript:
            self._growing = replace(given, both=None, joined_at=-1, joining=False)

    def wants_joining(self) -> Reply | None:
        """The next answer that a worker should join with its words."""
        for reply in self._all():
            complete = reply.transcript is not None and reply.transcript.complete
            if not reply.joining and reply.to_join and (complete or reply is self._growing):
                return reply
        return None

    def lost(self) -> None:
        """The worker that was joining is gone."""
        for reply in self._all():
            if reply.joining:
                reply.joining, reply.joined_at = False, -1

    def _all(self) -> Iterator[Reply]:
        return chain(self._finals, () if self._growing is None else (self._growing,), self._late)

    def due(self, now_s: float, waits: bool = True) -> Iterator[tuple[Reply, Stage]]:
        """Those that can go out now, in order. Unless `waits`, no words will come for a while."""
        while self._finals:
            reply = self._finals[0]
            hopeful = waits or (reply.transcript is not None and reply.transcript.complete)
            if not reply.written and hopeful and now_s < reply.until_s:
                break
            self._finals.popleft()
            if not reply.written:
                self._late.append(reply)
            yield self._out(reply), "final"
        growing = self._growing
        if growing is not None and not growing.joining and not growing.to_join:
            self._growing, self._next, self._given = self._next, None, growing
            yield self._out(growing), growing.mark.utterance.stage
        for reply in tuple(self._late):
            yield from self._amend(reply, now_s)

    def _amend(self, reply: Reply, now_s: float) -> Iterator[tuple[Reply, Stage]]:
        words = reply.transcript
        assert words is not None
        if not reply.written:
            if now_s < reply.until_s + self._late_s:
                return
            words.give_up()
        self._late.remove(reply)
        if not words.gone and (reply.both is not None or words.version != reply.said_at):
            yield self._out(reply), "amended"

    def _out(self, reply: Reply) -> Reply:
        reply.said_at = 0 if reply.transcript is None else reply.transcript.version
        return reply
