"""The engine as a program embeds it: open streams, feed sound, read results. Imports no torch.

async with Engine.from_config("live") as engine:
    stream = engine.open("kitchen", sample_rate_hz=48_000)
    ...
    await stream.feed(pcm)
    async for result in stream.results(): ...
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import psutil
import structlog
from numpy.typing import NDArray

from clser.engine import config as configuration
from clser.engine.clock import Clock, RealClock
from clser.engine.config import Config
from clser.engine.errors import FailedError, GivenError
from clser.engine.logs import configure_logs
from clser.engine.pipeline import Pipeline
from clser.engine.places import runtime_dir
from clser.engine.pool import LocalPool, Pool
from clser.engine.privacy import Keeper
from clser.engine.publish import Bus
from clser.engine.records import SAMPLE_RATE_HZ, AudioChunk, Message, Result, SampleFormat, samples
from clser.engine.resample import Resampler, check_layout, from_bytes
from clser.engine.worker import WorkerConfig

log = structlog.get_logger()

TICK_S = 0.1
PROBE_S = 0.02
DRAIN_S = 10.0
PIECE_S = 0.5  # longer packets are taken in by pieces
MESSAGES_KEPT = 4096


class Engine:
    """A running engine, between `async with` and its end. Leaving drains: open utterances get their final."""

    def __init__(self, config: Config, clock: Clock | None = None, pool: Pool | None = None) -> None:
        self.config = config
        self._clock = clock or RealClock()
        self._pool = pool
        self._bus = Bus(config.bus)
        self._keeper = Keeper(config.privacy) if config.privacy.keeps else None
        self._streams: set[Stream] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._lags_ms: deque[float] = deque(maxlen=round(config.bus.heartbeat_s / PROBE_S))

    @classmethod
    def from_config(cls, source: str | Path = "live", *overrides: str) -> Self:
        """`source` names a shipped config or a YAML file; overrides read `section.key=value`."""
        return cls(configuration.load(source, list(overrides)))

    async def __aenter__(self) -> Self:
        configure_logs(self.config.log.level, as_json=False, only_if_unset=True)
        worker = WorkerConfig(self.config.vad, self.config.model.voice, self.config.pool.compute)
        self._pool = self._pool or LocalPool(self.config.pool, worker, runtime_dir(), self._clock)
        self._pipeline = Pipeline(self.config, self._clock, self._pool, self._bus, self._keeper)
        try:
            self._bus.open()
            await self._pipeline.start()
        except BaseException:
            await self._pool.stop()
            self._bus.close()
            raise
        if self._keeper is not None:
            self._keeper.start()
        for loop in (self._tick, self._probe, self._heartbeat):
            self._tasks.append(asyncio.create_task(loop(), name=loop.__name__))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._pipeline.failure is None:
                self._pipeline.state = "stopping"
                self._pipeline.say("stopping")
                await self._drain()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            assert self._pool is not None
            await self._pool.stop()
            if self._keeper is not None:
                await self._keeper.stop()
            self._bus.close()

    async def _drain(self) -> None:
        """Close what is open and wait for the finals, but not for ever."""
        closing = [stream.close() for stream in tuple(self._streams)]
        try:
            await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), DRAIN_S)
        except TimeoutError:
            log.error("drain_gave_up", after_s=DRAIN_S, streams=len(self._streams))
            self._pipeline.abandon()

    @property
    def endpoint(self) -> str | None:
        """Where results are published, if they are."""
        return self._bus.endpoint

    @property
    def frame_samples(self) -> tuple[int, int]:
        """Samples (at 16 kHz) in a frame of the voice activity network and of the emotion model."""
        return self._pipeline.frame_samples

    def open(
        self,
        name: str,
        *,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        format: SampleFormat = "s16",  # noqa: A002 - the name callers expect
        channels: int = 1,
        speaker: str | None = None,
    ) -> "Stream":
        """A new stream. GivenError where the name is taken or the sound is of a kind the engine does not take."""
        check_layout(sample_rate_hz, channels, format)
        stream = Stream(self, name, Resampler(sample_rate_hz, channels), format, speaker)
        self._streams.add(stream)
        return stream

    def messages(self, frames: bool = False) -> "Messages":
        """Everything the engine publishes from now on (with `frames`, the continuous track too); ends with the engine."""
        return Messages(self._bus, frames)

    async def run_until_failed(self) -> None:
        """Wait for the engine to fail, and raise why; cancel it to stop waiting."""
        while self._pipeline.failure is None:
            await self._clock.sleep(TICK_S)
        raise self._pipeline.failure

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self._pipeline.tick()

    async def _probe(self) -> None:
        """How late the event loop runs."""
        while True:
            before = self._clock.monotonic_s()
            await self._clock.sleep(PROBE_S)
            self._lags_ms.append(max(0.0, self._clock.monotonic_s() - before - PROBE_S) * 1000)

    async def _heartbeat(self) -> None:
        assert self._pool is not None
        while True:
            await self._clock.sleep(self.config.bus.heartbeat_s)
            rss = sum(_rss_mb(pid) for pid in (None, *self._pool.pids))
            lags = self._lags_ms or [0.0]
            extra = {"loop_lag_ms_p99": float(np.percentile(lags, 99)), "rss_mb": rss, "sent": self._bus.sent}
            self._pipeline.say(
                "heartbeat",
                self._keeper.trouble if self._keeper else "",
                extra={k: round(v, 2) for k, v in extra.items()},
            )


class Messages:
    """An async iterator over the bus. A reader thousands of messages behind loses the oldest that are not finals."""

    def __init__(self, bus: Bus, frames: bool) -> None:
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
            droppable = (at for at, kept in enumerate(self._kept) if not (isinstance(kept, Result) and kept.final))
            del self._kept[next(droppable, 0)]
        self._news.set()

    def _end(self) -> None:
        self._ended = True
        self._news.set()


class Stream:
    """One stream of sound: made by `Engine.open`."""

    def __init__(
        self, engine: Engine, name: str, resampler: Resampler, sample_format: SampleFormat, speaker: str | None
    ) -> None:
        self._engine = engine
        self._pipeline = engine._pipeline
        self._clock = engine._clock
        self._resampler = resampler
        self._format: SampleFormat = sample_format
        self._results: deque[Result] = deque()
        self._news = asyncio.Event()
        self._read = False
        self._closing = False
        self._dropped = 0
        self._state = self._pipeline.open(name, speaker, resampler, self)
        config = engine.config.stream
        self._kept = config.results_kept
        self._backlog = samples(config.backlog_ms)
        self._overflow = samples(config.overflow_ms)
        self.name = name
        self.next_sample = 0
        """Index, in the stream's own rate, of the sample to come."""

    async def feed(
        self, pcm: "bytes | NDArray[np.int16] | NDArray[np.float32]", captured_unix_us: int | None = None
    ) -> None:
        """Hand over the next samples: raw interleaved bytes, or [samples] or [samples, channels].

        Waits while the engine is behind, so that a file can be fed as fast as it is read.
        """
        for piece, captured_us in self._pieces(pcm, captured_unix_us):
            self._accept(piece, captured_us)
            while self._behind() and not self._state.ended:
                self._state.held = True
                self._news.clear()
                await self._news.wait()
            self._state.held = False
            self._check_alive()

    def push(
        self,
        pcm: "bytes | NDArray[np.int16] | NDArray[np.float32]",
        captured_unix_us: int | None = None,
        start_sample: int | None = None,
    ) -> None:
        """For live sources: never waits. What the engine cannot keep up with is dropped, and published as a gap.

        `start_sample`, in the stream's own rate, tells of samples that were lost on the way.
        """
        pieces = self._pieces(pcm, captured_unix_us)
        if start_sample is not None:
            self._align(start_sample)
        for piece, captured_us in pieces:
            if self._state.backlog > (self._backlog if self._dropped else self._overflow):
                self._dropped += len(piece)
                self.next_sample += len(piece)
            else:
                self._accept(piece, captured_us)

    def _pieces(
        self, pcm: "bytes | NDArray[np.int16] | NDArray[np.float32]", captured_unix_us: int | None
    ) -> list[tuple[NDArray[np.int16] | NDArray[np.float32], int]]:
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
            (data[at : at + most], end_us - max(0, len(data) - at - most) * 1_000_000 // rate)
            for at in range(0, len(data), most)
        ]

    def _accept(self, data: NDArray[np.int16] | NDArray[np.float32], captured_unix_us: int) -> None:
        self._check_open()
        self._own_up()
        self._state.take(self._resampler.push(data), captured_unix_us, self._clock.monotonic_s())
        self.next_sample += len(data)
        self._pipeline.touch(self._state)

    async def close(self) -> None:
        """No more sound comes: returns when the last final is out."""
        if not self._closing:
            self._closing = True
            self._own_up()
            self._state.take(self._resampler.finish(), self._clock.unix_us(), self._clock.monotonic_s())
            self._state.barrier("closed", last=True)
            self._pipeline.touch(self._state)
        while not self._state.ended or self._state.tracks:
            if self._pipeline.failure is not None:
                break
            self._news.clear()
            await self._news.wait()
        self._engine._streams.discard(self)
        self._news.set()

    async def results(self) -> AsyncIterator[Result]:
        """Every answer, partial to final, until the stream is closed; partials that newer ones overtook are left out."""
        self._read = True
        while True:
            while self._results:
                result = self._results.popleft()
                self._news.set()  # a feeder may have waited for the reader
                yield result
            if self._state.ended and not self._state.tracks:
                break
            self._news.clear()
            await self._news.wait()
        self._check_alive()

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
        if not self._read and len(self._results) > self._kept:
            self._results.popleft()  # nobody has ever asked for them
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


def _rss_mb(pid: int | None) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


__all__ = ["AudioChunk", "Engine", "Result", "Stream"]
