"""What an embedding program holds in its hands: a stream to feed, and the messages to read. Made by `Engine`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clser.engine.clock import Clock
from clser.engine.errors import FailedError, GivenError
from clser.engine.pipeline import Pipeline
from clser.engine.publish import Bus
from clser.engine.records import SAMPLE_RATE_HZ, AudioChunk, Message, Result, SampleFormat, samples
from clser.engine.resample import Resampler, from_bytes
from clser.engine.stream import StreamConfig

MESSAGES_KEPT = 4096
Packet = bytes | bytearray | memoryview | NDArray[np.int16] | NDArray[np.float32]
PIECE_S = 0.5  # longer packets are taken in by pieces


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
        on_closed: "Callable[[Stream], None]",
    ) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._on_closed = on_closed
        self._resampler = resampler
        self._format: SampleFormat = sample_format
        self._results: deque[Result] = deque()
        self._news = asyncio.Event()
        self._read = False
        self._closing = False
        self._dropped = 0
        self._state = self._pipeline.open(name, speaker, self)
        self._kept = config.results_kept
        self._backlog = samples(config.backlog_ms)
        self._overflow = samples(config.overflow_ms)
        self.name = name
        self.next_sample = 0
        """Index, in the stream's own rate, of the sample to come."""

    async def feed(self, pcm: Packet, captured_unix_us: int | None = None) -> None:
        """Hand over the next samples: raw interleaved bytes, or [samples] or [samples, channels].

        Waits while the engine is behind, so that a file can be fed as fast as it is read.
        """
        for chunk in self._pieces(pcm, captured_unix_us):
            self._accept(chunk)
            try:
                while self._behind() and not self._state.ended:
                    self._state.held = True
                    self._news.clear()
                    await self._news.wait()
            finally:
                self._state.held = False
            self._check_alive()

    def push(
        self,
        pcm: Packet,
        captured_unix_us: int | None = None,
        start_sample: int | None = None,
    ) -> None:
        """For live sources: never waits. What the engine cannot keep up with is dropped, and published as a gap.

        `start_sample`, in the stream's own rate, tells of samples that were lost on the way.
        """
        chunks = self._pieces(pcm, captured_unix_us)
        if start_sample is not None:
            self._align(start_sample)
        for chunk in chunks:
            if self._state.backlog > (self._backlog if self._dropped else self._overflow):
                self._dropped += len(chunk.data)
                self.next_sample += len(chunk.data)
            else:
                self._accept(chunk)

    def _pieces(self, pcm: Packet, captured_unix_us: int | None) -> list[AudioChunk]:
        """The packet in pieces that the ring has room for, each with when its last sample was captured."""
        self._check_open()
        data = (
            from_bytes(pcm, self._resampler.channels, self._format)
            if isinstance(pcm, bytes | bytearray | memoryview)
            else pcm
        )
        rate = self._resampler.sample_rate_hz
        end_us = captured_unix_us or self._clock.unix_us()
        most = round(rate * PIECE_S)
        return [
            AudioChunk(data[at : at + most], end_us - max(0, len(data) - at - most) * 1_000_000 // rate)
            for at in range(0, len(data), most)
        ]

    def _accept(self, chunk: AudioChunk) -> None:
        self._check_open()
        self._own_up()
        pcm = self._resampler.push(chunk.data)
        self._state.take(pcm, chunk.captured_unix_us, self._clock.monotonic_s())
        self.next_sample += len(chunk.data)
        self._pipeline.touch(self._state)

    async def close(self) -> None:
        """No more sound comes: returns when the last final is out, or raises why it never will be."""
        if not self._closing and not self._state.ended:
            self._own_up()
            self._state.take(self._resampler.finish(), self._clock.unix_us(), self._clock.monotonic_s())
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
        return self._pipeline.failure is None and (not self._state.ended or bool(self._state.tracks))

    def mute(self, muted: bool) -> None:
        """While muted (an assistant speaks itself), sound counts but is not heard; what was open gets its final."""
        if muted and not self._state.muted:
            self._state.barrier("muted")
            self._pipeline.touch(self._state)
        self._state.muted = muted

    @property
    def closed(self) -> bool:
        return self._state.ended

    def progressed(self) -> None:
        """The pipeline's word that some sound has been dealt with, or that the stream has ended."""
        self._news.set()

    def answered(self, result: Result) -> None:
        """The pipeline's word of a result, as it was published."""
        if self._results and self._results[-1].utterance == result.utterance and not self._results[-1].final:
            self._results.pop()
        self._results.append(result)
        if len(self._results) > (
            2 * self._kept if self._read else self._kept
        ):  # a feeder would wait; a live source cannot
            _drop_one(self._results)
            self._pipeline.unread()
        self._news.set()

    def _behind(self) -> bool:
        return self._state.backlog > self._backlog or (self._read and len(self._results) > self._kept)

    def _align(self, start_sample: int) -> None:
        missing = start_sample - self.next_sample
        if missing < 0:
            raise GivenError(f"stream {self.name!r}: sample {start_sample} came again; the next is {self.next_sample}")
        if missing:
            self._own_up()
            self._lose(missing, "lost")
            self.next_sample = start_sample

    def _own_up(self) -> None:
        """Publish what was dropped in one go, once there is room again."""
        if self._dropped:
            self._lose(self._dropped, "overflow")
            self._dropped = 0

    def _lose(self, missing: int, reason: str) -> None:
        """`missing` samples in the stream's own rate are not there; the resampler starts anew behind them."""
        self._state.take(self._resampler.finish(), self._clock.unix_us(), self._clock.monotonic_s())
        self._pipeline.gap(self._state, round(missing * SAMPLE_RATE_HZ / self._resampler.sample_rate_hz), reason)

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
