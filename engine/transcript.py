"""What utterances say, as it becomes known: which of their sound the recogniser has, and what may no longer change. Pure.

A `Transcript` is one utterance's; a `Dictation` has all of a stream's that are not complete, and hands them to the recogniser
one after the other. Whatever a recogniser says later, a word once stable stays: it has been published.
"""

from collections import deque
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from clser.engine.jobs import Word, Words
from clser.engine.records import Samples, Text, Utterance, samples, seconds
from clser.engine.ring import Ring

MOST_WAITING = 4  # ended utterances of a stream that are still to be written down
ROW_SAMPLES = samples(20_000)

Numbers = NDArray[np.float32]


class Transcript:
    """Samples count from the stream's beginning, in the words' times as well."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.grown = start
        """Its sound goes so far by now."""
        self.sent = start
        """The recogniser was handed all before this."""
        self.heard = start
        """What is written covers the sound before this."""
        self.fresh = True
        self.held = False
        """The utterance seems to be over."""
        self.ended = False
        self.gone = False
        """Nothing more will be written."""
        self.words: tuple[Word, ...] = ()
        self.stable = 0
        self.told: Numbers | None = None
        """What the words tell; None where nothing reads them, or there is no word."""
        self.language = ""
        self.confidence = 0.0
        self.suspect = False
        self.version = 0
        """Grows whenever something else is written."""
        self._whole = False
        self._asked = -1  # up to there it was asked what stands
        self._finished = False  # the recogniser knows that the utterance is over
        self._sound: Samples | None = None  # all of it, once it has ended

    @property
    def complete(self) -> bool:
        """Nothing about it will change any more."""
        return self.gone or (self.ended and self.heard >= self.grown and self._whole)

    @property
    def text(self) -> str:
        return "".join(word.text for word in self.words).strip()

    def record(self) -> Text | None:
        """As it is published; None before anything was heard."""
        if not self.version and not self.complete:
            return None
        stable = len(self.words) if self.complete else self.stable
        text = "".join(word.text for word in self.words[:stable]).lstrip()
        tail = "".join(word.text for word in self.words[stable:])
        return Text(
            stable=text,
            tail=tail if text else tail.lstrip(),
            language=self.language or None,
            confidence=round(self.confidence, 3),
            suspect=self.suspect,
            times=tuple((seconds(word.start), seconds(word.end)) for word in self.words),
        )

    def grow(self, to: int, held: bool = False) -> None:
        """Its sound goes so far by now; `held`: it seems to be over there."""
        self.held = held or (self.held and to == self.grown)
        self.grown = to

    def end(self, at: int, sound: Samples) -> None:
        """The utterance ends at that sample; `sound` is all of it from `start` on, to be kept until it is written down.

        A cut falls in the past, so the recogniser may have heard more: words behind it belong to the next utterance.
        """
        self.ended, self.grown = True, at
        self._sound = sound
        self._leave_out_behind(self.stable)

    def _leave_out_behind(self, published: int) -> None:
        """What was heard beyond the end belongs to the next utterance, save the words that have been published as stable."""
        if self.ended and self.heard > self.grown:
            end = self.grown
            self.words = tuple(w for n, w in enumerate(self.words) if n < published or (w.start + w.end) // 2 < end)
            self.stable = min(self.stable, len(self.words))

    @property
    def said_until(self) -> int:
        """Where its last stable word ends, or its sound does, whichever is later."""
        return max(self.grown, self.words[self.stable - 1].end if self.stable else 0)

    def waiting(self, step: int) -> tuple[int, bool]:
        """(New samples worth handing over, whether it is asked what stands). (0, False): there is nothing to do."""
        if self.complete or (self.ended and self._finished):
            return 0, False
        new = max(0, self.grown - self.sent)
        if self.ended or self.held:
            asks = self.ended or self._asked < self.grown
            return (new, True) if new > 0 or asks else (0, False)
        return (new, False) if new >= step else (0, False)

    def cut(self, ring: Ring, asks: bool) -> tuple[bool, bool, bool, Samples]:
        """(fresh, anew, last, sound) of a row with all there is, or as much as a row may hold."""
        end = max(self.sent, min(self.grown, self.sent + ROW_SAMPLES))  # it may have had more than there is now: a cut
        all_of_it = end >= self.grown
        pcm = self._read(ring, self.sent, end)
        fresh, self.fresh = self.fresh, False
        self.sent = end
        last = asks and all_of_it and self.ended
        self._finished = self._finished or last
        if asks and all_of_it:
            self._asked = end
        return fresh, asks and all_of_it, last, pcm

    def _read(self, ring: Ring, begin: int, end: int) -> Samples:
        if self._sound is not None:
            return self._sound[begin - self.start : end - self.start]
        return ring.read(begin, end)

    def take(self, said: Words, told: Numbers | None, up_to: int) -> bool:
        """What the recogniser holds of the sound up to that sample; whether that is news."""
        words = [
            Word(_plain(word.text), self.start + word.start, self.start + word.end, word.confidence)
            for word in said.words
        ]
        published = self.stable
        words, stable = _keeping(self.words[:published], words, said.stable)
        self.heard, self._whole = up_to, said.whole
        self.language, self.confidence = said.language, said.confidence
        before = (self.text, self.suspect, self.version > 0)
        self.suspect = said.suspect
        self.words, self.stable = tuple(words), stable
        self._leave_out_behind(published)
        if told is not None:
            self.told = told if self.words else None
        news = before != (self.text, self.suspect, True)
        self.version += news
        return news

    def begin_anew(self) -> None:
        """The recogniser has forgotten this utterance, and hears it again; what it was asked it will be asked again."""
        if not self.complete:
            self.sent, self.fresh, self._asked, self._finished = self.start, True, -1, False

    def give_up(self) -> None:
        self.gone, self._sound = True, None
        self.stable = len(self.words)  # nobody will change them

    def settled(self) -> None:
        """It is complete; its sound is needed no more."""
        self._sound = None


def _plain(text: str) -> str:
    """Without what would move a terminal's cursor."""
    return text if text.isprintable() else "".join(sign for sign in text if sign.isprintable())


def _keeping(frozen: tuple[Word, ...], words: list[Word], stable: int) -> tuple[list[Word], int]:
    """`words` with those that are stable already in their place, and how many are stable then."""
    if tuple(w.text for w in words[: len(frozen)]) == tuple(w.text for w in frozen):
        return [*frozen, *words[len(frozen) :]], max(stable, len(frozen))
    # it began anew, and hears them otherwise now
    last = frozen[-1].end
    new = [(n < stable, word) for n, word in enumerate(words) if (word.start + word.end) // 2 >= last]
    return [*frozen, *(word for _, word in new)], len(frozen) + sum(is_stable for is_stable, _ in new)


class Cut(NamedTuple):
    """Sound on its way to the recogniser."""

    transcript: Transcript
    fresh: bool
    anew: bool
    last: bool
    pcm: Samples
    up_to: int


class Dictation:
    """One stream's."""

    def __init__(self, step_ms: int) -> None:
        self._step = samples(step_ms)
        self._queue: deque[Transcript] = deque()
        self._end = 0  # of the last utterance, words and all
        self._told_language = ""
        self.language = ""
        """What the stream speaks, once two utterances in a row said so."""
        self.wordless = 0
        """Samples of speech since the last word."""
        self.written = 0
        """Words of utterances that have ended."""
        self.given_up = 0
        """Utterances that were not written down to their end."""
        self.slot = self.worker = -1

    def begin(self, start: int) -> Transcript:
        """Another utterance; sound before a cut is not written down twice."""
        transcript = Transcript(max(start, self._end))
        self._queue.append(transcript)
        return transcript

    def follow(self, transcript: Transcript, utterance: Utterance, ring: Ring) -> None:
        """How far the utterance goes by now, or that it ends."""
        if utterance.stage == "final":
            self._end_it(transcript, utterance.end_sample, ring)
        else:
            transcript.grow(utterance.end_sample, held=utterance.stage == "tentative")

    def _end_it(self, transcript: Transcript, at: int, ring: Ring) -> None:
        begin = max(transcript.start, ring.start)
        sound = ring.read(begin, max(begin, at))
        if begin > transcript.start:  # never in our own rings, which hold the longest utterance
            transcript.give_up()
        transcript.end(at, sound)
        self._end = max(self._end, transcript.said_until)
        waiting = [each for each in self._queue if each.ended and not each.complete]
        for each in waiting[: max(0, len(waiting) - MOST_WAITING)]:
            each.give_up()
        self._sweep()

    def withdraw(self, transcript: Transcript) -> None:
        if transcript in self._queue:  # it may have been given up already
            self._queue.remove(transcript)
        transcript.give_up()

    def give_up(self) -> None:
        """Nothing more is written of what was begun."""
        for transcript in self._queue:
            transcript.give_up()
        self._sweep()

    @property
    def idle(self) -> bool:
        """Nothing of it is with a recogniser, or will be before another utterance begins."""
        self._sweep()
        return not self._queue

    @property
    def unsent(self) -> int:
        """Samples that the recogniser has not been handed, beyond those that wait for a step to be full."""
        return max(0, sum(each.grown - each.sent for each in self._queue if not each.gone) - self._step)

    def waiting(self) -> tuple[bool, bool]:
        """Whether there is a row to cut, and whether somebody waits for what it says."""
        self._sweep()  # what waited too long may have been given up meanwhile
        if not self._queue:
            return False, False
        new, asks = self._queue[0].waiting(self._step)
        return new > 0 or asks, asks

    def cut(self, ring: Ring) -> Cut:
        """All there is of the oldest."""
        transcript = self._queue[0]
        fresh, anew, last, pcm = transcript.cut(ring, self.waiting()[1])
        return Cut(transcript, fresh, anew, last, pcm, transcript.sent)

    def hear(self, cut: Cut, said: Words, told: Numbers | None) -> bool:
        """The recogniser's answer to a row; whether that is news."""
        transcript = cut.transcript
        if transcript.complete:  # given up, or whole before this came
            self._sweep()
            return False
        if cut.last:
            said = msgspec.structs.replace(said, whole=True)  # no more will ever come
        news = transcript.take(said, told, cut.up_to)
        self.wordless = 0 if said.words else self.wordless + len(cut.pcm)
        if transcript.complete:
            self._end = max(self._end, transcript.said_until)
            self._note_language(said)
        self._sweep()
        return news

    def _note_language(self, said: Words) -> None:
        if said.language and said.words and not said.suspect:
            if said.language == self._told_language:
                self.language = said.language
            self._told_language = said.language

    def rewind(self) -> None:
        """The recogniser's state is gone."""
        for transcript in self._queue:
            transcript.begin_anew()

    def _sweep(self) -> None:
        """Those that are complete need the recogniser no more."""
        while self._queue and self._queue[0].complete:
            done = self._queue.popleft()
            done.settled()
            self.given_up += done.gone
            self.written += 0 if done.gone else len(done.words)
