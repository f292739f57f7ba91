"""The engine as a program embeds it: open streams, feed sound, read results. Imports no torch.

async with Engine.from_config("live") as engine:
    stream = engine.open("kitchen", sample_rate_hz=48_000)
    ...
    await stream.feed(pcm)
    async for result in stream.results(): ...
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import psutil

from clser.engine import config as configuration
from clser.engine.backends.recognisers import Choice, choose
from clser.engine.clock import Clock, RealClock
from clser.engine.config import Config
from clser.engine.control import Control
from clser.engine.doors import Doors
from clser.engine.errors import FailedError, GivenError
from clser.engine.handle import Messages, Stream
from clser.engine.health import MetricsServer
from clser.engine.herald import Herald
from clser.engine.loading import Loader
from clser.engine.logs import log
from clser.engine.metrics import Metrics
from clser.engine.pipeline import Pipeline
from clser.engine.places import control_beside, runtime_dir
from clser.engine.pool import Pool, PoolConfig, open_pool
from clser.engine.privacy import Keeper
from clser.engine.publish import Bus
from clser.engine.recognition import Recognition
from clser.engine.records import SAMPLE_RATE_HZ, SCHEMA, Result, SampleFormat
from clser.engine.reload import applies, changes, settings
from clser.engine.resample import Resampler, check_layout
from clser.engine.scribe import WritingConfig
from clser.engine.worker import WorkerConfig
from clser.models.labels import PUBLISHED

TICK_S = 0.1
PROBE_S = 0.02
DRAIN_S = 10.0
LAST_WORDS_S = 2.0  # of them, for words that are late


class Engine:
    """A running engine, between `async with` and its end. Leaving drains: open utterances get their final."""

    def __init__(
        self, config: Config, clock: Clock | None = None, pool: Pool | None = None, scribes: Pool | None = None
    ) -> None:
        """`scribes`: a pool whose workers recognise words."""
        self.config = config
        self.doors = Doors(config.bus.keys)
        self._source: str | Path | None = None
        self._overrides: tuple[str, ...] = ()
        self._clock = clock or RealClock()
        self._pool, self._scribes = pool, scribes
        self._bus = Bus(config.bus, self._clock)
        self._control = Control(self, self._bus)
        self._metrics = Metrics(self._numbers, self._clock, self._model)
        self._health = MetricsServer(self._metrics, self.ready)
        self.others: list[Callable[[], Mapping[str, float]]] = []
        """Counters of what works beside it, such as a socket for sound; they come with the heartbeat."""
        self.waits: list[Callable[[], float]] = []
        """For how many seconds sound has been waiting to be taken in, of each such socket."""
        self._keeper = Keeper(config.privacy) if config.privacy.keeps else None
        self.asr = Choice()
        """Which recogniser was taken, and why."""
        self._streams: dict[str, Stream] = {}
        self._loader: Loader | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lags_ms: deque[float] = deque(maxlen=round(config.bus.heartbeat_s / PROBE_S))

    @classmethod
    def from_config(cls, source: str | Path = "live", *overrides: str) -> Self:
        """`source` names a shipped config or a YAML file; overrides read `section.key=value`."""
        engine = cls(configuration.load(source, list(overrides)))
        engine._source, engine._overrides = source, overrides
        return engine

    async def __aenter__(self) -> Self:
        config = self.config
        recognition = self._open_recognition()
        worker = WorkerConfig(
            config.vad, config.model.voice, backend=config.model.backend, joins=recognition is not None
        )
        self._pool = self._pool or open_pool(config.pool, worker, runtime_dir(), self._clock)
        herald = Herald(self._bus, self._clock, self._keeper)
        self._pipeline = Pipeline(self.config, self._clock, self._pool, herald, recognition)
        try:
            await self._open_sockets()
            await self._pipeline.start()
            self._loader = Loader(self._pool, self._pipeline)
            if config.model.delta:
                await self._loader.load(config.model.delta)
            if recognition is not None and self._pipeline.recognition is None:
                self.asr = Choice(why=f"{self.asr.module.rpartition('.')[2]} cannot be used: {recognition.trouble}")
        except BaseException:
            await self._stop_pools()
            await self._close_sockets()
            raise
        if self._keeper is not None:
            self._keeper.start()
        for loop in (self._tick, self._probe, self._heartbeat):
            self._tasks.append(task := asyncio.create_task(loop(), name=loop.__name__))
            task.add_done_callback(self._task_ended)
        return self

    def _open_recognition(self) -> Recognition | None:
        """Workers that recognise words, where the config asks for them and they can be had."""
        asr = self.config.asr
        if self._scribes is None:
            self.asr = choose(asr)
            if not self.asr.module:
                return None
            pool = PoolConfig(workers=asr.workers, compute=asr.compute, start_s=asr.start_s, silent_s=asr.hung_s)
            writing = WritingConfig(self.asr, asr, threads=asr.threads)
            self._scribes = open_pool(pool, writing, runtime_dir(), self._clock)
        return Recognition(asr, self._scribes)

    async def _stop_pools(self) -> None:
        pools = [pool for pool in (self._pool, self._scribes) if pool is not None]
        await asyncio.gather(*(pool.stop() for pool in pools))

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
            await self._stop_pools()
            if self._keeper is not None:
                await self._keeper.stop()
            await self._close_sockets()
        if kind is None and self._pipeline.failure is not None:
            raise self._pipeline.failure  # leaving as if all were well would hide finals that never came

    async def _open_sockets(self) -> None:
        """Before the workers are warm: whoever asks can see that the engine lives, and is not ready."""
        self.doors.open()
        self._bus.open(self.doors)
        asked = self.config.bus.control
        if asked == "auto":
            asked = (self._bus.endpoint and control_beside(self._bus.endpoint)) or ""
        if asked:
            self._control.open(asked, self.doors)
        if self.config.metrics.bind:
            self._bus.tap(self._metrics.take, lambda: None, frames=False)
            await self._health.start(self.config.metrics)

    async def _close_sockets(self) -> None:
        await self._health.stop()
        self._control.close()
        self._bus.close()
        self.doors.close()

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        """They run for ever; without one of them the engine would only seem to be well."""
        if not task.cancelled() and task.exception() is not None:
            self._pipeline.failed(FailedError(f"{task.get_name()} broke: {task.exception()!r}; please report it"))

    async def _drain(self) -> None:
        """Close what is open and wait for the finals, but not for ever."""
        self._pipeline.be_patient(self.config.asr.wait_ms / 1000, LAST_WORDS_S)
        closing = [stream.close() for stream in tuple(self._streams.values())]
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
        results: bool = True,
        again: bool = False,
    ) -> Stream:
        """A new stream; `again`, one that was open until just now. Without `results` none are kept for `Stream.results`:
        where everything goes over the bus, nobody would ever fetch them.

        GivenError where the name is taken or the sound is of a kind the engine does not take."""
        check_layout(sample_rate_hz, channels, format)
        stream = Stream(
            name,
            pipeline=self._pipeline,
            config=self.config.stream,
            clock=self._clock,
            resampler=Resampler(sample_rate_hz, channels),
            sample_format=format,
            speaker=speaker,
            results=results,
            again=again,
            on_closed=self._forget,
        )
        self._streams[name] = stream
        return stream

    def _forget(self, stream: Stream) -> None:
        if self._streams.get(stream.name) is stream:
            del self._streams[stream.name]

    def messages(self, frames: bool = False) -> Messages:
        """Everything the engine publishes from now on (with `frames`, the continuous track too); ends with the engine."""
        return Messages(self._bus, frames)

    async def run_until_failed(self) -> None:
        """Wait for the engine to fail, and raise why; cancel it to stop waiting."""
        while self._pipeline.failure is None:
            await self._clock.sleep(TICK_S)
        raise self._pipeline.failure

    # --- what may be asked of it while it runs (control.py) -------------------------------------------------------

    def ready(self) -> dict[str, Any]:
        """Whether every worker has warmed up and none is down."""
        state = self._pipeline.state
        return {"ready": state == "ready", "state": state}

    def describe(self) -> dict[str, Any]:
        """What runs here."""
        pipeline = self._pipeline
        return {
            "engine": {
                "version": version("clser-stream"),
                "schema": SCHEMA,
                "epoch": self._bus.epoch,
                "state": pipeline.state,
                "publish": self._bus.endpoint,
                "control": self._control.endpoint,
            },
            "classes": list(PUBLISHED),
            "model": msgspec.to_builtins(pipeline.voice) if pipeline.voice else None,
            "delta": self._loader.facts()["delta"] if self._loader else None,
            "recogniser": self._describe_recogniser(),
            "streams": [stream.describe() for stream in self._streams.values()],
            "speakers_known": len(pipeline.speakers) if pipeline.speakers is not None else 0,
            "counters": pipeline.totals(),
            "settings": {
                path: {"value": value, "changes": applies(path)} for path, value in settings(self.config).items()
            },
        }

    def _describe_recogniser(self) -> dict[str, Any]:
        """What writes down what is said, or why nothing does."""
        recognition = self._pipeline.recognition
        if recognition is None or recognition.card is None:
            return {"name": None, "why": self.asr.why}
        return {**msgspec.to_builtins(recognition.card), "up": recognition.up, "why": self.asr.why}

    def reload(self, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
        """Read the config again, with `overrides` upon it, and take over what may change now; all of it or nothing."""
        if self._source is None:
            config = configuration.changed(self.config, list(overrides))
        else:
            config = configuration.load(self._source, [*self._overrides, *overrides])
        changed = changes(self.config, config)
        newest = {override.partition("=")[0]: override for override in (*self._overrides, *overrides)}
        self._overrides = tuple(newest.values())
        self.config = config
        self._pipeline.configure(config)
        self._pipeline.say("reloaded", ", ".join(path for paths in changed.values() for path in paths))
        return {"changed": changed}

    async def load(self, delta: str | None) -> dict[str, Any]:
        """Answer with what `clser-models adapt` wrote upon the model (None: with the model as it is), from the next batch on.
        Nothing is lost, and nothing changes where the file is refused."""
        if self._loader is None:
            raise GivenError("the workers are still starting; ask again when the engine is ready")
        return await self._loader.load(delta)

    def mute(self, stream: str, muted: bool = True) -> None:
        """While muted, the stream's sound counts but is not heard."""
        self._stream(stream).mute(muted)

    def reset_speaker(self, stream: str, speaker: str | None = None) -> None:
        """Somebody else speaks from here on."""
        self._stream(stream).new_speaker(speaker)

    def _stream(self, name: str) -> Stream:
        if name not in self._streams:
            there = ", ".join(sorted(self._streams)[:8]) or "none"
            raise GivenError(f"stream {name!r} is not open; open are: {there}")
        return self._streams[name]

    # --- its own tasks --------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        due_s = self._clock.monotonic_s()
        while True:
            due_s += TICK_S
            await self._clock.sleep(TICK_S)
            now_s = self._clock.monotonic_s()
            self._pipeline.tick(max([now_s - due_s, *(wait() for wait in self.waits)]))
            due_s = now_s

    async def _probe(self) -> None:
        """How late the event loop runs."""
        while True:
            before = self._clock.monotonic_s()
            await self._clock.sleep(PROBE_S)
            self._lags_ms.append(max(0.0, self._clock.monotonic_s() - before - PROBE_S) * 1000)

    async def _heartbeat(self) -> None:
        while True:
            await self._clock.sleep(self.config.bus.heartbeat_s)
            trouble = self._keeper.trouble if self._keeper else ""
            self._pipeline.say("heartbeat", trouble, extra=self._vitals())

    def _vitals(self) -> dict[str, float]:
        """How engine and sockets are, beside the pipeline's own counters."""
        assert self._pool is not None
        scribes = [] if self._scribes is None else self._scribes.pids
        vitals = {
            "loop_lag_ms_p99": float(np.percentile(self._lags_ms or [0.0], 99)),
            "rss_mb": sum(_rss_mb(pid) for pid in (None, *self._pool.pids, *scribes)),
            "sent": self._bus.sent,
            "unread": self._bus.unread,
            "replay_cut_short": self._bus.history.cut_short,
            "control_refused": self._control.refused,
            "metrics_refused": self._health.refused,
            "turned_away": self.doors.turned_away,
            "loads": self._loader.loads if self._loader else 0,
        }
        for counters in self.others:
            vitals.update(counters())
        return {name: round(value, 2) for name, value in vitals.items()}

    def _numbers(self) -> dict[str, float]:
        return {**self._pipeline.totals(), **self._vitals(), "ready": self.ready()["ready"]}

    def _model(self) -> str:
        """What answers, by its digest, with its delta's: a name is whatever a file says."""
        voice = self._pipeline.voice
        return voice.digest if voice else ""


def _rss_mb(pid: int | None) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


__all__ = ["Engine", "Messages", "Result", "Stream"]
