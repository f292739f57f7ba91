"""Who writes down what is said: workers of their own, so that slow words never delay the voice's answer.

Like the emotion model's (lanes.py), a worker has at most one batch under way, and the streams that get new sound meanwhile wait
their turn: the next batch takes them all, with all the sound there is. So the steps widen by themselves when there is no time,
and nothing piles up. If recognition breaks for good, the engine goes on without it.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from clser.engine import jobs
from clser.engine.asr import AUTO, AsrConfig
from clser.engine.errors import ClserError
from clser.engine.logs import log
from clser.engine.pool import Pool
from clser.engine.records import samples
from clser.engine.schedule import Schedule
from clser.engine.slots import Slots
from clser.engine.stream import StreamState
from clser.engine.transcript import Cut, Dictation, Transcript

NOTHING = dict.fromkeys(("words_written", "words_given_up", "recognisers_lost", "recogniser_busy_s"), 0.0)
"""What is counted where nothing is written down."""
MOST_ROWS = 8  # windows of as many streams in a batch: more make all of them wait

Numbers = NDArray[np.float32]


class Reader(Protocol):
    """Who is told what was written."""

    def landed(self, stream: StreamState, transcript: Transcript, news: bool) -> None:
        """A row of it has been answered."""

    def unhopeful(self) -> None:
        """No words will come for a while, or ever."""

    def say(self, event: str, detail: str, stream: str | None = None) -> None:
        """Something that people should know."""


class Written(NamedTuple):
    stream: StreamState
    cut: Cut


class Desk:
    """One worker: the streams that are placed with it, the slots of their state, and what it has to do."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.up = True
        self.waiting: Schedule[StreamState] = Schedule()
        self.streams: dict[StreamState, None] = {}
        self.under_way: list[Written] | None = None
        self.batches = 0
        self._slots = Slots()

    def admit(self, stream: StreamState, dictation: Dictation) -> None:
        dictation.worker, dictation.slot = self.number, self._slots.take()
        self.streams[stream] = None

    def release(self, stream: StreamState, dictation: Dictation) -> None:
        del self.streams[stream]
        self._slots.give_back(dictation.slot)
        self.waiting.withdraw(stream)


class Recognition:
    def __init__(self, config: AsrConfig, pool: Pool) -> None:
        self._config = config
        self._pool = pool
        self._desks = [Desk(number) for number in range(pool.workers)]
        self._remarked: set[StreamState] = set()
        self.broken = False
        """It has been given up for good."""
        self.card: jobs.RecogniserCard | None = None
        """Known once a worker is ready."""
        self.trouble = ""
        """Why it did not start."""
        self.busy_us = 0
        self._written = self._given_up = 0  # words and utterances of streams that have ended
        self._lost = 0

    async def start(self, reader: Reader) -> bool:
        """Return when every worker is warm; False if that cannot be, and nobody asked for this recogniser by name."""
        self._reader = reader
        try:
            ready = await self._pool.start(self)
        except ClserError as error:
            if self._config.recogniser != AUTO:
                raise
            await self._pool.stop()
            self.trouble = str(error)
            log.error("recognition_failed", why=self.trouble)
            return False
        assert isinstance(ready, jobs.ReadyWords)
        self.card, self._tells = ready.card, ready.tells
        self._step_ms = self._config.step_ms or ready.card.step_ms
        return True

    def joins(self, joins: jobs.Joins) -> None:
        """What the emotion model's workers make of words."""
        self._joined = joins == "text" or (joins == "opinions" and self._tells > 0)

    def configure(self, config: AsrConfig) -> None:
        self._config = config

    def totals(self) -> dict[str, float]:
        """What it has counted, by the names it is published with."""
        live = [stream.dictation for desk in self._desks for stream in desk.streams if stream.dictation is not None]
        return {
            "words_written": self._written + sum(dictation.written for dictation in live),
            "words_given_up": self._given_up + sum(dictation.given_up for dictation in live),
            "recognisers_lost": self._lost,
            "recogniser_busy_s": round(self.busy_us / 1e6, 3),
        }

    @property
    def up(self) -> bool:
        """Whether there is hope for words."""
        return not self.broken and any(desk.up for desk in self._desks)

    # --- streams --------------------------------------------------------------------------------------------------

    def admit(self, stream: StreamState) -> None:
        """From now on what it says is written down."""
        if self.broken:
            return
        stream.dictation = Dictation(self._step_ms)
        desk = min(self._desks, key=lambda desk: (not desk.up, len(desk.streams)))
        desk.admit(stream, stream.dictation)

    def release(self, stream: StreamState) -> None:
        """What it says is written down no longer."""
        dictation, stream.dictation = stream.dictation, None
        if dictation is not None:
            dictation.give_up()
            self._written += dictation.written
            self._given_up += dictation.given_up
            self._remarked.discard(stream)
            self._desks[dictation.worker].release(stream, dictation)

    def offer(self, stream: StreamState) -> None:
        """It may have sound to be written down."""
        if stream.dictation is None:
            return
        there, urgent = stream.dictation.waiting()
        if there:
            desk = self._desks[stream.dictation.worker]
            desk.waiting.offer(stream, urgent)
            self._pump(desk)

    def unwritten(self, stream: StreamState) -> int:
        """Samples of its speech that wait to be written down, while there is hope that they will be."""
        return 0 if stream.dictation is None or not self.up else stream.dictation.unsent

    def pause(self) -> None:
        """There is no time for words: what was begun is given up."""
        for desk in self._desks:
            for stream in desk.streams:
                assert stream.dictation is not None
                stream.dictation.give_up()
        self._reader.unhopeful()

    def _pump(self, desk: Desk) -> None:
        if not desk.up or desk.under_way is not None:
            return
        rows: list[jobs.Row] = []
        written: list[Written] = []
        while len(desk.waiting) and len(rows) < MOST_ROWS:
            (stream,) = desk.waiting.take(1)
            dictation = stream.dictation
            assert dictation is not None
            if not dictation.waiting()[0]:
                continue  # the utterance it waited with has been withdrawn
            cut = dictation.cut(stream.ring)
            written.append(Written(stream, cut))
            rows.append(
                jobs.Row(
                    dictation.slot, len(cut.pcm), cut.fresh, anew=cut.anew, last=cut.last, language=dictation.language
                )
            )
        if rows:
            desk.batches += 1
            desk.under_way = written
            batch = jobs.Batch(desk.batches, "words", tuple(rows))
            self._pool.submit(desk.number, batch, np.concatenate([each.cut.pcm for each in written]))

    # --- answers in (the pool's listener) -------------------------------------------------------------------------

    def answered(self, worker: int, answer: jobs.Answer, numbers: Numbers) -> None:
        desk = self._desks[worker]
        if desk.under_way is None or answer.number != desk.batches:
            return  # a dead worker's last words
        written = desk.under_way  # still: whatever this brings should wait for all of it
        self.busy_us += answer.busy_us
        told = numbers.reshape(len(written), self._tells)
        try:
            for (stream, cut), words, told_X in zip(written, answer.words, told, strict=True):
                if stream in desk.streams:
                    self._hear(desk, stream, cut, words, told_X)
        finally:
            desk.under_way = None
            self._pump(desk)

    def _hear(self, desk: Desk, stream: StreamState, cut: Cut, words: jobs.Words, told_X: Numbers) -> None:
        dictation = stream.dictation
        assert dictation is not None
        news = dictation.hear(cut, words, told_X if self._joined else None)
        self._watch(stream, dictation)
        try:
            self._reader.landed(stream, cut.transcript, news)
        except Exception:  # noqa: BLE001 - our mistake; it may cost this stream its words, but not the others
            log.exception("stream_broken", stream=stream.name)
            self.release(stream)
            return
        if stream in desk.streams and dictation.waiting()[0]:
            desk.waiting.offer(stream, dictation.waiting()[1])

    def _watch(self, stream: StreamState, dictation: Dictation) -> None:
        """A recogniser that writes nothing for long hears nothing, or cannot follow: people should know, and it begins anew."""
        if dictation.wordless == 0:
            self._remarked.discard(stream)
        elif dictation.wordless > samples(self._config.silent_s * 1000) and stream not in self._remarked:
            self._remarked.add(stream)
            dictation.rewind()
            detail = (
                f"no words in {self._config.silent_s:.0f} s of speech: is it a language it does not know (--language), "
                "or no speech at all?"
            )
            log.warning("recogniser_silent", stream=stream.name, what=detail)
            self._reader.say("recogniser_silent", detail, stream.name)

    def lost(self, worker: int, why: str) -> None:
        desk = self._desks[worker]
        desk.up, desk.under_way = False, None
        self._lost += 1
        up = [each for each in self._desks if each.up]
        for stream in tuple(desk.streams):
            dictation = stream.dictation
            assert dictation is not None
            dictation.rewind()
            if up:
                desk.release(stream, dictation)
                min(up, key=lambda each: len(each.streams)).admit(stream, dictation)
                self.offer(stream)
        log.error("recogniser_lost", worker=worker, why=why)
        self._reader.say("recogniser_lost", f"recogniser {worker}: {why}")
        if not up:
            self._reader.unhopeful()

    def fell_back(self, worker: int, why: str) -> None:
        log.warning("recogniser_fell_back", worker=worker, why=why)
        self._reader.say("recogniser_fell_back", f"recogniser {worker}: {why}")

    def back(self, worker: int) -> None:
        desk = self._desks[worker]
        desk.up = True
        log.warning("recogniser_back", worker=worker)
        self._reader.say("recogniser_back", f"recogniser {worker}")
        for stream in (*desk.streams, *self._share(desk)):
            self.offer(stream)

    def _share(self, desk: Desk) -> list[StreamState]:
        """Quiet streams that move there from desks that have more of them."""
        moved = []
        for other in self._desks:
            busy = {each.stream for each in other.under_way or ()}
            for stream in tuple(other.streams):
                dictation = stream.dictation
                assert dictation is not None
                if len(other.streams) - len(desk.streams) > 1 and stream not in busy and dictation.idle:
                    other.release(stream, dictation)
                    desk.admit(stream, dictation)
                    moved.append(stream)
        return moved

    def failed(self, error: ClserError) -> None:
        """The voice alone is judged from now on."""
        self.broken = True
        for desk in self._desks:
            for stream in tuple(desk.streams):
                self.release(stream)
        self._reader.unhopeful()
        log.error("recognition_failed", why=str(error))
        self._reader.say("recognition_failed", f"the voice alone is judged from now on: {error}")
