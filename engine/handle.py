"""What an embedding program holds in its hands: a stream to feed, and the messages to read. Made by `Engine`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clser.engine.clock import Clock
from clser.engine.drift import CaptureClock
from clser.engine.errors import FailedError, GivenError
from clser.engine.logs import log
from clser.engine.pipeline import Pipeline
from clser.engine.publish import Bus
from clser.engine.records import AudioChunk, Message, Result, SampleFormat, samples, seconds
from clser.engine.resample import Resampler, from_bytes
from clser.engine.stream import StreamConfig

MESSAGES_KEPT = 4096
Sound = NDArray[np.int16] | NDArray[np.float32]
Packet = bytes | bytearray | memoryview | Sound
PIECE_S = 0.5  # longer packets are taken in by pieces
LONGEST_GAP_S = 10 * 365 * 86_400  # beyond it, numbers begin to lose their last digits


class Messages:
    """An async iterator over the bus. A reader thousands of messages behind loses the oldest that are not finals."""

    def __init__(self, bus: Bus, frames: bool) -> None:
        self._bus = bus
        self._kept: deque[Message] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self._close = bus.tap(self._take, self._end, frames)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._kept:
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._kept.popleft()

    def close(self) -> None:
        """Listen no longer; what has arrived can still be read."""
        self._close()
        self._end()

    def _take(self, message: Message) -> None:
        self._kept.append(message)
        if len(self._kept) > MESSAGES_KEPT:
            _drop_one(self._kept)
            self._bus.unread += 1
        self._news.set()

    def _end(self) -> None:
        self._ended = True
        self._news.set()


class Stream:
    """One stream of sound: made by `Engine.open`."""

    def __init__(
        self,
        name: str,
        *,
        pipeline: Pipeline,
        config: StreamConfig,
        clock: Clock,
        resampler: Resampler,
        sample_format: SampleFormat,
        speaker: str | None,
        results: bool,
        again: bool,
        on_closed: "Callable[[Stream], None]",
    ) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._on_closed = on_closed
        self._resampler = resampler
        self._captures = CaptureClock(resampler.sample_rate_hz)
        self._format: SampleFormat = sample_format
        self._results: deque[Result] = deque()
        self._keeps_results = results
        self._news = asyncio.Event()
        self._read = False
        self._closing = False
        self._dropped = 0
        self._state = self._pipeline.open(name, speaker, self, again)
        self._kept = config.results_kept
        self._backlog = samples(config.backlog_ms)
        self._overflow = samples(config.overflow_ms)
        self.name = name
        self.next_sample = 0
        """Index, in the stream's own rate, of the sample to come."""

    async def feed(self, pcm: Packet, captured_unix_us: int | None = None, *, for_words: bool = False) -> None:
        """Hand over the next samples: raw interleaved bytes, or [samples] or [samples, channels].

        Waits while the engine is behind, so that a file can be fed as fast as it is read; `for_words`, also while what writes
        down what is said is: else utterances stay without words where it cannot keep up.
        """
        for chunk in self._pieces(self._samples(pcm), captured_unix_us, live=False):
            self._check_open()
            self._accept(chunk)
            try:
                while self._behind(for_words) and not self._state.ended:
                    self._state.held = True
                    self._news.clear()
                    await self._news.wait()
            finally:
                if self._state.held:
                    self._state.held = False
                    self._state.last_arrival_s = self._clock.monotonic_s()  # it was not the feeder who paused
            self._check_alive()

    def push(
        self,
        pcm: Packet,
        captured_unix_us: int | None = None,
        start_sample: int | None = None,
    ) -> None:
        """For live sources: never waits. What the engine cannot keep up with is dropped, and published as a gap.

        `start_sample`, in the stream's own rate, tells of samples that were lost on the way. What comes again is left out;
        GivenError where that is all there is.
        """
        data = self._samples(pcm)
        self._state.live = True
        if start_sample is not None:
            data = data[self._align(start_sample, len(data)) :]
        for chunk in self._pieces(data, captured_unix_us, live=True):
            if self._state.backlog > (self._backlog if self._dropped else self._overflow):
                self._dropped += len(chunk.data)
                self.next_sample += len(chunk.data)
            else:
                self._accept(chunk)

    def _samples(self, pcm: Packet) -> Sound:
        """The packet as [samples, channels]; refused as a whole or not at all."""
        self._check_open()
        if isinstance(pcm, bytes | bytearray | memoryview):
            pcm = from_bytes(pcm, self._resampler.channels, self._format)
        return self._resampler.check(pcm)

    def _pieces(self, data: Sound, captured_unix_us: int | None, live: bool) -> list[AudioChunk]:
        """The packet in pieces that the ring has room for, each with when its last sample was captured."""
        if len(data) == 0:
            return []
        begin = self.next_sample
        now_us, now_s = self._clock.unix_us(), self._clock.monotonic_s()
        read = self._captures.hear(begin + len(data), captured_unix_us, now_us, now_s, live)
        if read.event:
            log.warning(read.event, stream=self.name, what=read.detail)
            self._pipeline.say(read.event, read.detail, stream=self.name)
        most = round(self._resampler.sample_rate_hz * PIECE_S)
        if len(data) <= most:
            return [AudioChunk(data, read.captured_us)]
        cuts = [*range(0, len(data), most), len(data)]
        return [AudioChunk(data[at:to], self._captures.at(begin + to)) for at, to in pairwise(cuts)]

    def _accept(self, chunk: AudioChunk) -> None:
        if self._dropped:
            self._own_up()
        pcm = self._resampler.convert(chunk.data)
        captured_us = chunk.captured_unix_us - self._resampler.held_us
        self._state.take(pcm, captured_us, self._clock.monotonic_s())
        self.next_sample += len(chunk.data)
        self._pipeline.sounded(self._state)

    async def close(self) -> None:
        """No more sound comes: returns when the last final is out, or raises why it never will be."""
        if not self._closing and not self._state.ended:
            self._own_up()
            self._take_rest()
            self._state.drift_ppm = self.drift_ppm
            self._state.barrier("closed", last=True)
            self._pipeline.touch(self._state)
        self._closing = True
        while self._going_on():
            self._news.clear()
            await self._news.wait()
        self._on_closed(self)
        self._news.set()
        self._check_alive()

    async def results(self) -> AsyncIterator[Result]:
        """Every answer, partial to final, until the stream is closed; partials that newer ones overtook are left out."""
        self._read = True
        try:
            while self._results or self._going_on():
                if not self._results:
                    self._news.clear()
                    await self._news.wait()
                    continue
                result = self._results.popleft()
                self._news.set()  # a feeder may have waited for the reader
                yield result
        finally:
            self._read = False  # a reader that has gone must not keep a feeder waiting
            self._news.set()
        self._check_alive()

    def _going_on(self) -> bool:
        due = bool(self._state.tracks) or bool(self._state.replies)
        return self._pipeline.failure is None and (not self._state.ended or due)

    def mute(self, muted: bool) -> None:
        """While muted (an assistant speaks itself), sound counts but is not heard; what was open gets its final."""
        if muted == self._state.muted or self._state.ended:
            return
        if muted:
            self._state.barrier("muted")
            self._pipeline.touch(self._state)
        self._state.muted = muted
        self._pipeline.say("muted" if muted else "unmuted", stream=self.name)

    def new_speaker(self, speaker: str | None = None) -> None:
        """From here on somebody else speaks: what is open gets its final, and nothing is remembered beyond it.

        Who spoke until now is forgotten by the model too, unless he and whoever follows have names: then he may come back.
        """
        self._check_open()
        self._state.barrier("speaker", speaker=speaker)
        self._pipeline.touch(self._state)
        self._pipeline.say("speaker_reset", stream=self.name)

    def describe(self) -> dict[str, object]:
        """How it is, for people and dashboards."""
        state = self._state
        opened = state.segmenter.open
        return {
            "name": self.name,
            "speaker": state.speaker,
            "speaker_utterances": round(state.acquaintance.utterances) if state.acquaintance else 0,
            "sample_rate_hz": self._resampler.sample_rate_hz,
            "channels": self._resampler.channels,
            "sound_s": seconds(state.total),
            "backlog_s": seconds(state.backlog),
            "drift_ppm": self.drift_ppm,
            "utterance": opened.number if opened else None,
            "muted": state.muted,
            "worker": state.worker,
        }

    @property
    def closed(self) -> bool:
        return self._state.ended

    @property
    def drift_ppm(self) -> float | None:
        """By how many millionths the stream's sample clock is faster than the wall clock; None until that can be told."""
        return self._captures.drift_ppm

    def progressed(self) -> None:
        """The pipeline's word that some sound has been dealt with, or that the stream has ended."""
        self._news.set()

    def answered(self, result: Result) -> None:
        """The pipeline's word of a result, as it was published."""
        if not self._keeps_results:
            return
        if self._results and self._results[-1].utterance == result.utterance and not self._results[-1].final:
            self._results.pop()
        self._results.append(result)
        if len(self._results) > (
            2 * self._kept if self._read else self._kept
        ):  # a feeder would wait; a live source cannot
            _drop_one(self._results)
            self._pipeline.unread()
        self._news.set()

    def _behind(self, for_words: bool) -> bool:
        words = self._pipeline.recognition if for_words else None
        unwritten = 0 if words is None else words.unwritten(self._state)
        behind = self._state.backlog > self._backlog or unwritten > self._overflow
        return behind or (self._read and len(self._results) > self._kept)

    def _align(self, start_sample: int, count: int) -> int:
        """Publish what is missing before a packet, or tell how much of it has been heard already."""
        missing = start_sample - self.next_sample
        if missing < 0 and missing + count <= 0:
            raise GivenError(f"stream {self.name!r}: sample {start_sample} came again; the next is {self.next_sample}")
        if missing > LONGEST_GAP_S * self._resampler.sample_rate_hz:
            raise GivenError(f"stream {self.name!r}: a jump of {missing} samples is no gap; count from the opening")
        if missing > 0 and self._dropped:
            self._dropped += missing  # one gap with what there was no time for
            self.next_sample = start_sample
        elif missing > 0:
            self._lose(missing, "lost")
            self.next_sample = start_sample
        return max(0, -missing)

    def _own_up(self) -> None:
        """Publish what was dropped in one go, once there is room again."""
        if self._dropped:
            self._lose(self._dropped, "overflow")
            self._dropped = 0

    def _lose(self, missing: int, reason: str) -> None:
        """`missing` samples in the stream's own rate are not there; the resampler starts anew behind them."""
        self._take_rest()
        lost = self._resampler.skip(missing)
        if lost:  # less than a sample at 16 kHz is nothing there
            self._pipeline.gap(self._state, lost, reason)

    def _take_rest(self) -> None:
        """What the resampler has held back."""
        rest = self._resampler.finish()
        self._state.take(rest, self._captures.at(self._resampler.taken), self._clock.monotonic_s())

    def _check_open(self) -> None:
        self._check_alive()
        if self._closing:
            raise GivenError(f"stream {self.name!r} is closed: open another")

    def _check_alive(self) -> None:
        if self._pipeline.failure is not None:
            raise self._pipeline.failure
        if self._state.ended and not self._closing:
            raise FailedError(f"stream {self.name!r} has ended: open another")


def _drop_one(kept: "deque[Message] | deque[Result]") -> None:
    """The oldest that is no final; where only finals wait, the oldest of them."""
    droppable = (at for at, message in enumerate(kept) if not (isinstance(message, Result) and message.final))
    del kept[next(droppable, 0)]
