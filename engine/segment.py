"""Voiced frames -> utterances that grow, seem to end, and end. Pure: no clock, no loop, no socket.

    idle --start_ms voiced--> open --tentative_ms silent--> held --voiced again--> open
                               |                             |
                               +--longest_ms: cut------------+--asked-for silence--> final, idle

While an utterance is held it does not grow: its tentative answer is already the answer of its final, and silence that
turns out to be a pause is added when speech goes on. So nothing is left to compute when the final is due.
"""

from collections import deque
from typing import Annotated

from msgspec import Meta, Struct

from clser.engine.records import Stage, Utterance, samples

Milliseconds = Annotated[int, Meta(ge=0)]


class SegmentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    start_ms: Milliseconds = 100
    """Voiced for so long: speech has started."""
    end_ms: Milliseconds = 300
    """Silent for so long: the utterance has ended."""
    least_speech_ms: Milliseconds = 200
    """An utterance with less voiced sound is withdrawn."""
    lead_in_ms: Milliseconds = 300
    """Sound before the onset that the networks hear as well."""
    longest_ms: Annotated[int, Meta(ge=1000)] = 15_000
    """An utterance is cut when it gets this long."""
    shrink_from_ms: Milliseconds = 5_000
    """From this length on the silence asked for shrinks, down to `least_end_ms` at `longest_ms`."""
    least_end_ms: Milliseconds = 100
    cut_search_ms: Milliseconds = 2_000
    """A cut falls in the quietest place of the last so many ms."""
    carry_ms: Milliseconds = 500
    """Sound before a cut that the next utterance hears again."""
    tentative_ms: Milliseconds = 150
    """Silent for so long: it seems to have ended."""
    partial_from_ms: Milliseconds = 500
    partial_every_ms: Annotated[int, Meta(ge=20)] = 250
    idle_ms: Milliseconds = 1_000
    """Packets stop for so long in mid-speech: the utterance is ended."""


class Started(Struct, frozen=True):
    number: int
    onset_sample: int


class Ended(Struct, frozen=True):
    number: int
    offset_sample: int
    reason: str


Event = Started | Utterance | Ended


class _Open:
    """The utterance that is open."""

    def __init__(self, number: int, start: int, onset: int) -> None:
        self.number = number
        self.start = start
        self.onset = onset
        self.offset = onset  # end of the last voiced frame
        self.speech = 0  # voiced samples
        self.silence = 0  # samples since the last voiced one
        self.held_at: int | None = None  # where it stopped growing, while it seems to have ended
        self.next_partial = 0


class Segmenter:
    """One stream's. Every frame is pushed once, in order; the events do not depend on how the sound was cut into packets."""

    def __init__(self, config: SegmentConfig, frame_samples: int, start_sample: int = 0, last_number: int = 0) -> None:
        self._frame = frame_samples
        self._start = samples(config.start_ms)
        self._end = samples(config.end_ms)
        self._least_end = min(samples(config.least_end_ms), self._end)
        self._least_speech = samples(config.least_speech_ms)
        self._lead_in = samples(config.lead_in_ms)
        self._longest = samples(config.longest_ms)
        self._shrink_from = min(samples(config.shrink_from_ms), self._longest)
        self._carry = samples(config.carry_ms)
        self._tentative = samples(config.tentative_ms)
        self._partial_from = samples(config.partial_from_ms)
        self._partial_every = samples(config.partial_every_ms)
        # no more than this, so that cuts always catch up
        self._search = min(samples(config.cut_search_ms), (self._longest - self._carry) // 2)
        self._recent: deque[tuple[int, bool, float]] = deque(maxlen=max(1, self._search // frame_samples))
        self.last_number = last_number
        self._restart(start_sample)

    def _restart(self, at: int) -> None:
        self.position = at
        self._floor = at  # nothing before it belongs to the next utterance
        self._voiced_run = 0
        self._open: _Open | None = None
        self._recent.clear()

    @property
    def cut_from(self) -> int:
        """Samples from an utterance's start to before which no cut falls."""
        return self._longest - self._search

    @property
    def open(self) -> Utterance | None:
        """The open utterance as far as it has grown."""
        if self._open is None:
            return None
        return self._utterance("partial", self._grown(self._open))

    def push(self, voiced: bool, level_db: float) -> list[Event]:
        """Take the next frame."""
        self.position += self._frame
        self._recent.append((self.position, voiced, level_db))
        if self._open is None:
            return self._wait(voiced)
        return self._grow(self._open, voiced)

    def flush(self, reason: str) -> list[Event]:
        """End what is open, here and now."""
        if self._open is None:
            self._voiced_run = 0
            return []
        return self._finish(self._open, reason)

    def skip_to(self, at_sample: int) -> None:
        """Go on behind a gap; what was open must have been flushed."""
        assert self._open is None
        self._restart(at_sample)

    def _wait(self, voiced: bool) -> list[Event]:
        self._voiced_run = self._voiced_run + self._frame if voiced else 0
        if self._voiced_run < max(self._start, self._frame):
            return []
        onset = self.position - self._voiced_run
        return [self._begin(max(onset - self._lead_in, self._floor), onset, self._voiced_run)]

    def _begin(self, start: int, onset: int, speech: int) -> Started:
        self.last_number += 1
        self._open = opened = _Open(self.last_number, start, onset)
        opened.speech = speech
        opened.offset = onset + speech
        opened.next_partial = onset + self._partial_from
        self._voiced_run = 0
        return Started(opened.number, onset)

    def _grow(self, opened: _Open, voiced: bool) -> list[Event]:
        events: list[Event] = []
        if voiced:
            opened.speech += self._frame
            opened.silence = 0
            opened.offset = self.position
            if opened.held_at is not None:  # the tentative answer is withdrawn by a partial
                opened.held_at = None
                opened.next_partial = self.position
        else:
            opened.silence += self._frame
            asked = self._asked(self.position - opened.start)
            if opened.silence >= asked:
                return self._finish(opened, "silence")
            if opened.held_at is None and opened.silence >= self._tentative:
                opened.held_at = self.position
                if opened.speech >= self._least_speech:
                    events.append(self._utterance("tentative", self.position))
        if self.position - opened.start >= self._longest:
            return [*events, *self._cut(opened)]
        enough = opened.speech >= self._least_speech
        if enough and opened.held_at is None and self.position >= opened.next_partial:
            opened.next_partial = self.position + self._partial_every
            events.append(self._utterance("partial", self.position))
        return events

    def _asked(self, length: int) -> int:
        """The silence that ends an utterance of this length."""
        over = max(0, length - self._shrink_from) / max(1, self._longest - self._shrink_from)
        return round(self._end - (self._end - self._least_end) * min(1.0, over))

    def _grown(self, opened: _Open) -> int:
        return self.position if opened.held_at is None else opened.held_at

    def _utterance(self, stage: Stage, end: int, reason: str = "") -> Utterance:
        assert self._open is not None
        return Utterance(self._open.number, stage, self._open.start, self._open.onset, end, reason)

    def _finish(self, opened: _Open, reason: str, end: int | None = None) -> list[Event]:
        """The final, or nothing but the end where there was too little speech."""
        end = self._grown(opened) if end is None else end
        offset = min(opened.offset, end)
        events: list[Event]
        if opened.speech < self._least_speech:
            events = [Ended(opened.number, offset, "too_short")]
        else:
            events = [self._utterance("final", end, reason), Ended(opened.number, offset, reason)]
        self._open = None
        self._floor = end
        self._voiced_run = 0
        return events

    def _cut(self, opened: _Open) -> list[Event]:
        """End in the quietest place of the last while; the next utterance hears a little before it again."""
        least = opened.start + self._carry  # so that the next utterance starts later than this one did
        places = [frame for frame in self._recent if frame[0] > least] or [self._recent[-1]]
        cut, _, _ = min(reversed(places), key=lambda frame: frame[2])
        after = [voiced for end, voiced, _ in self._recent if end > cut]
        events = self._finish(opened, "longest", cut)
        events.append(self._begin(max(opened.start, cut - self._carry), cut, sum(after) * self._frame))
        assert self._open is not None
        self._open.offset = max((end for end, voiced, _ in self._recent if voiced and end > cut), default=cut)
        self._open.silence = self.position - self._open.offset
        return events
