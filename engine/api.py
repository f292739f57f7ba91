"""The engine as a program embeds it: open streams, feed sound, read results. Imports no torch.

async with Engine.from_config("live") as engine:
    stream = engine.open("kitchen", sample_rate_hz=48_000)
    ...
    await stream.feed(pcm)
    async for result in stream.results(): ...
"""

import asyncio
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import psutil

from clser.engine import config as configuration
from clser.engine.clock import Clock, RealClock
from clser.engine.config import Config
from clser.engine.errors import FailedError
from clser.engine.handle import Messages, Stream
from clser.engine.logs import log
from clser.engine.pipeline import Pipeline
from clser.engine.places import runtime_dir
from clser.engine.pool import LocalPool, Pool
from clser.engine.privacy import Keeper
from clser.engine.publish import Bus
from clser.engine.records import SAMPLE_RATE_HZ, Result, SampleFormat
from clser.engine.resample import Resampler, check_layout
from clser.engine.worker import WorkerConfig

TICK_S = 0.1
PROBE_S = 0.02
DRAIN_S = 10.0


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
            self._tasks.append(task := asyncio.create_task(loop(), name=loop.__name__))
            task.add_done_callback(self._task_ended)
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
        if kind is None and self._pipeline.failure is not None:
            raise self._pipeline.failure  # leaving as if all were well would hide finals that never came

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        """They run for ever; without one of them the engine would only seem to be well."""
        if not task.cancelled() and task.exception() is not None:
            self._pipeline.failed(FailedError(f"{task.get_name()} broke: {task.exception()!r}; please report it"))

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

    def open(
        self,
        name: str,
        *,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        format: SampleFormat = "s16",  # noqa: A002 - the name callers expect
        channels: int = 1,
        speaker: str | None = None,
    ) -> Stream:
        """A new stream. GivenError where the name is taken or the sound is of a kind the engine does not take."""
        check_layout(sample_rate_hz, channels, format)
        stream = Stream(
            name,
            pipeline=self._pipeline,
            config=self.config.stream,
            clock=self._clock,
            resampler=Resampler(sample_rate_hz, channels),
            sample_format=format,
            speaker=speaker,
            on_closed=self._streams.discard,
        )
        self._streams.add(stream)
        return stream

    def messages(self, frames: bool = False) -> Messages:
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
            extra = {
                "loop_lag_ms_p99": float(np.percentile(lags, 99)),
                "rss_mb": rss,
                "sent": self._bus.sent,
                "unread": self._bus.unread,
            }
            self._pipeline.say(
                "heartbeat",
                self._keeper.trouble if self._keeper else "",
                extra={k: round(v, 2) for k, v in extra.items()},
            )


def _rss_mb(pid: int | None) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


__all__ = ["Engine", "Messages", "Result", "Stream"]
