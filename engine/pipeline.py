"""The stages wired together, in the order sound passes them. READ SECOND.

    feed -> resample -> ring -> voice activity (worker) -> segment -> emotion (worker) -> fuse -> bus

Each worker has two lanes, voice activity and emotion, with at most one batch under way in each. While a batch is computed,
streams that get new work wait in the lane's schedule; the next batch takes them all. So batches are small while there is
time and large when there is not, and the engine is up to date as soon as the machine allows.
"""

import asyncio
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clser.engine import jobs
from clser.engine.clock import Clock
from clser.engine.config import Config
from clser.engine.errors import ClserError, GivenError
from clser.engine.logs import log
from clser.engine.pool import Pool
from clser.engine.privacy import Keeper
from clser.engine.publish import KEPT, Bus
from clser.engine.records import ENGINE, STREAM_NAME, Gap, Result, State, Status, Utterance, samples, seconds
from clser.engine.report import Reporter, speech
from clser.engine.schedule import Schedule
from clser.engine.segment import Ended, Event
from clser.engine.stream import Heard, Mark, StreamState, Track
from clser.engine.tally import Tally

MOST_ROWS = {"vad": 256, "voice": 128}
MOST_FRAMES = 16


FEW = 8
GATHER_S = 0.002
SILENT = "every sample so far is zero: is the microphone muted, or was the wrong track recorded?"


class Owner(Protocol):
    """Whoever opened a stream."""

    def progressed(self) -> None:
        """Some of its sound has been dealt with, or it has ended."""

    def answered(self, result: Result) -> None:
        """A result, as it was published."""


class _Lane:
    """One kind of work for one worker."""

    def __init__(self) -> None:
        self.waiting: Schedule[StreamState] = Schedule()
        self.number = 0
        self.under_way: list[tuple[StreamState, Track | None, int]] | None = None
        """(stream, its utterance, frames) of each row of the batch that is being computed."""


class _Place:
    """A worker as the pipeline sees it."""

    def __init__(self) -> None:
        self.up = True
        self.lanes: dict[jobs.Lane, _Lane] = {lane: _Lane() for lane in jobs.LANES}
        self.streams: set[StreamState] = set()
        self.free_slots: list[int] = []
        self.woken = False


class Pipeline:
    """All streams. Call `take` with sound; results leave through the bus."""

    def __init__(self, config: Config, clock: Clock, pool: Pool, bus: Bus, keeper: Keeper | None = None) -> None:
        self._config = config
        self._clock = clock
        self._pool = pool
        self._bus = bus
        self._keeper = keeper
        self._streams: dict[str, StreamState] = {}
        self._owners: dict[StreamState, Owner] = {}
        self._numbers: Tally[str] = Tally(KEPT)  # a name that is opened again goes on counting its utterances
        self._past = {"entered": 0, "needed": 0, "replaced": 0, "sound": 0}
        self.state: State = "starting"
        self.failure: ClserError | None = None
        self.counters = dict.fromkeys(
            ("finals", "partials", "tentatives", "withdrawn", "gaps", "lost_samples", "workers_lost"), 0
        )
        self.busy_us = 0

    async def start(self) -> None:
        """Return when every worker is warm."""
        ready = await self._pool.start(self)
        self.frame_samples = (ready.vad_frame_samples, ready.voice.frame_samples)
        self._reporter = Reporter(self._config.fuse, ready.voice, self._clock)
        self._places = [_Place() for _ in range(self._pool.workers)]
        self._turn("ready", "ready", f"{ready.voice.name} {ready.voice.digest}")

    # --- streams --------------------------------------------------------------------------------------------------

    def open(self, name: str, speaker: str | None, owner: Owner) -> StreamState:
        """A new stream."""
        if not STREAM_NAME.fullmatch(name):
            raise GivenError(f"stream {name!r}: a name has 1 to 64 of A-Z a-z 0-9 . _ -")
        if name in self._streams or name.startswith("_"):
            why = (
                "it is open already (clser-stream: name the devices, as in --device left=file:PATH)"
                if name in self._streams
                else "names that begin with _ are the engine's own"
            )
            raise GivenError(f"stream {name!r}: {why}; take another name")
        config = self._config
        configs = (config.stream, config.vad, config.segment)
        stream = StreamState(name, speaker, configs, self.frame_samples, self._numbers.last(name))
        worker = min(range(len(self._places)), key=lambda number: len(self._places[number].streams))
        place = self._places[worker]
        stream.worker = worker
        stream.slot = place.free_slots.pop() if place.free_slots else len(place.streams)
        stream.last_arrival_s = self._clock.monotonic_s()
        place.streams.add(stream)
        self._streams[name] = stream
        self._owners[stream] = owner
        self.say("opened", stream=name)
        return stream

    @property
    def streams(self) -> int:
        return len(self._streams)

    def touch(self, stream: StreamState) -> None:
        """It has sound or a barrier to deal with. A stream that has ended has neither: its slot may be another's by now."""
        if stream not in self._owners:
            return
        self._settle(stream)
        self._wake(stream.worker)

    def gap(self, stream: StreamState, missing: int, reason: str) -> None:
        """`missing` samples (at 16 kHz) are lost at the stream's end."""
        self.counters["gaps"] += 1
        self.counters["lost_samples"] += missing
        self._bus.publish(Gap(stream=stream.name, from_sample=stream.total, count=missing, reason=reason))
        log.warning("gap", stream=stream.name, count=missing, reason=reason)
        stream.barrier("gap", missing)
        self.touch(stream)

    def unread(self) -> None:
        """A result was dropped that nobody in this process read."""
        self._bus.unread += 1

    def tick(self) -> None:
        """Ten times a second: end utterances whose packets have stopped coming, and remark on streams of zeros."""
        now = self._clock.monotonic_s()
        for stream in tuple(self._streams.values()):
            quiet_s = now - stream.last_arrival_s
            if (
                quiet_s * 1000 > self._config.segment.idle_ms
                and stream.segmenter.open is not None
                and stream.backlog < stream.vad_frame
                and not stream.held  # else it is we who keep the packets waiting
                and not stream.vad_waiting()
            ):
                stream.barrier("idle")
                self.touch(stream)
            if stream.total > samples(self._config.stream.silent_warn_s * 1000):
                self._remark_silence(stream)

    def _remark_silence(self, stream: StreamState) -> None:
        if not stream.heard_sample and not stream.silence_remarked:
            stream.silence_remarked = True
            self.say("silent", SILENT, stream.name)
            log.warning("silent", stream=stream.name, what=SILENT)

    # --- batches out ----------------------------------------------------------------------------------------------

    def _wake(self, worker: int) -> None:
        """Look for work once the loop has handled what is there, so that packets that came together go together."""
        place = self._places[worker]
        if place.woken:
            return
        place.woken = True
        loop = asyncio.get_running_loop()
        if len(place.streams) > FEW:  # a moment's patience makes one batch of what many streams bring
            loop.call_later(GATHER_S, self._pump, worker)
        else:
            loop.call_soon(self._pump, worker)

    def _pump(self, worker: int) -> None:
        place = self._places[worker]
        place.woken = False
        if not place.up or self.failure is not None:
            return
        for name, lane in place.lanes.items():
            if lane.under_way is None and len(lane.waiting):
                self._send(worker, name, lane)

    def _send(self, worker: int, name: jobs.Lane, lane: _Lane) -> None:
        rows: list[jobs.Row] = []
        sounds: list[NDArray[np.int16]] = []
        under_way: list[tuple[StreamState, Track | None, int]] = []
        now = self._clock.monotonic_s()
        for stream in lane.waiting.take(MOST_ROWS[name]):
            if not (stream.vad_waiting() if name == "vad" else stream.voice_waiting()[0]):
                continue  # the utterance it waited with has been withdrawn or cut
            track: Track | None = None
            if name == "vad":
                count, fresh, pcm = stream.cut_vad(MOST_FRAMES)
            else:
                track, count, fresh, pcm = stream.cut_voice(MOST_FRAMES, now)
            rows.append(jobs.Row(stream.slot, count, fresh))
            sounds.append(pcm)
            under_way.append((stream, track, count))
            self._offer(stream)
        if not rows:
            return
        lane.number += 1
        lane.under_way = under_way
        self._pool.submit(worker, jobs.Batch(lane.number, name, tuple(rows)), np.concatenate(sounds))

    def _offer(self, stream: StreamState) -> None:
        """Queue the stream in the lanes that have work for it."""
        lanes = self._places[stream.worker].lanes
        if stream.vad_waiting():
            lanes["vad"].waiting.offer(stream)
        count, urgent = stream.voice_waiting()
        if count:
            lanes["voice"].waiting.offer(stream, urgent)

    # --- answers in (the pool's listener) -------------------------------------------------------------------------

    def answered(self, worker: int, answer: jobs.Answer, numbers: NDArray[np.float32]) -> None:
        place = self._places[worker]
        lane = place.lanes[answer.lane]
        if lane.under_way is None or answer.number != lane.number:
            return  # a worker's last words about a batch that was taken from it
        self.busy_us += answer.busy_us
        rows, lane.under_way = lane.under_way, None
        frames = sum(count for _, _, count in rows)
        table = numbers.reshape(frames, -1)
        now = self._clock.monotonic_s()
        at = 0
        for stream, track, count in rows:
            said = table[at : at + count]
            at += count
            if stream not in self._owners:
                continue  # it was abandoned meanwhile
            try:
                self._answer(stream, track, said, now)
            except Exception:  # noqa: BLE001 - our mistake; it may cost this stream, but not the others of the batch
                log.exception("stream_broken", stream=stream.name)
                stream.tracks.clear()
                self._end(stream)
        self._wake(worker)

    def _answer(self, stream: StreamState, track: Track | None, said: NDArray[np.float32], now: float) -> None:
        if track is None:
            self._hear(stream, stream.hear_vad(said[:, 0]), now)
        else:
            track.answers.extend(said)
            track.answered_s = now
        self._settle(stream)

    def lost(self, worker: int, why: str) -> None:
        place = self._places[worker]
        place.up = False
        for lane in place.lanes.values():
            lane.under_way = None
        for stream in place.streams:
            stream.rewind()
        self.counters["workers_lost"] += 1
        self._turn("degraded", "worker_lost", f"worker {worker}: {why}")

    def back(self, worker: int) -> None:
        self._places[worker].up = True
        self._turn(
            "ready" if all(place.up for place in self._places) else "degraded", "worker_back", f"worker {worker}"
        )
        for stream in tuple(self._places[worker].streams):
            self.touch(stream)

    def failed(self, error: ClserError) -> None:
        self.failure = error
        self._turn("failed", "failed", str(error))
        self.abandon()

    def abandon(self) -> None:
        """End every stream as it is; what is due is given up."""
        for stream in tuple(self._streams.values()):
            stream.tracks.clear()
            self._end(stream)

    # --- decisions ------------------------------------------------------------------------------------------------

    def _hear(self, stream: StreamState, heard: Heard, now: float) -> None:
        stream.follow(heard.events, now)
        self._publish_speech(stream, heard.events)
        if self._bus.frames_wanted:
            for frame in self._reporter.frames(stream, heard):
                self._bus.publish(frame)

    def _settle(self, stream: StreamState) -> None:
        """Give what is due, pass the barriers that can be passed, and queue what is to be computed."""
        now = self._clock.monotonic_s()
        answered = True
        while answered:  # a gap may have waited for nothing but the final
            while passed := stream.pass_barrier():
                barrier, events = passed
                stream.follow(events, now)
                self._publish_speech(stream, events)
                if barrier.last:
                    stream.ended = True
            answered = False
            for track, mark in stream.answers_due():
                self._publish_result(stream, track, mark)
                answered = True
        if stream.ended and not stream.tracks:
            self._end(stream)
        else:
            self._offer(stream)
        if stream in self._owners:
            self._owners[stream].progressed()

    def _end(self, stream: StreamState) -> None:
        if self._streams.get(stream.name) is not stream:
            return  # it ended before, and its name may be somebody else's by now
        del self._streams[stream.name]
        self._numbers.put(stream.name, stream.segmenter.last_number)
        stream.ended = True
        place = self._places[stream.worker]
        place.streams.discard(stream)
        place.free_slots.append(stream.slot)
        for lane in place.lanes.values():
            lane.waiting.withdraw(stream)
        for key, value in (
            ("entered", stream.entered),
            ("needed", stream.needed),
            ("replaced", stream.replaced),
            ("sound", stream.total),
        ):
            self._past[key] += value
        if stream.total:
            self._remark_silence(stream)
        self.say("closed", stream=stream.name)
        self._owners.pop(stream).progressed()

    # --- messages -------------------------------------------------------------------------------------------------

    def _publish_result(self, stream: StreamState, track: Track, mark: Mark) -> None:
        self.counters[f"{mark.utterance.stage}s"] += 1
        result = self._reporter.result(stream, track, mark)
        sent = self._bus.publish(result)
        assert isinstance(sent, Result)
        self._owners[stream].answered(sent)
        if self._keeper is not None and result.final:
            self._keeper.keep(sent, stream.ring.read(max(stream.ring.start, result.start_sample), result.end_sample))

    def _publish_speech(self, stream: StreamState, events: list[Event]) -> None:
        for event in events:
            if not isinstance(event, Utterance):
                self.counters["withdrawn"] += isinstance(event, Ended) and event.reason == "too_short"
                self._bus.publish(speech(stream.name, event))

    def _turn(self, state: State, event: str, detail: str) -> None:
        self.state = state
        (log.info if state == "ready" else log.error)(event, detail=detail)
        self.say(event, detail)

    def say(
        self, event: str, detail: str = "", stream: str | None = None, extra: dict[str, float] | None = None
    ) -> None:
        """Publish a status, with the counters if it is the engine's own."""
        counters = {} if stream else {**self.totals(), **(extra or {})}
        self._bus.publish(
            Status(
                stream=stream or ENGINE,
                unix_us=self._clock.unix_us(),
                state=self.state,
                event=event,
                detail=detail,
                counters=counters,
            )
        )

    def totals(self) -> dict[str, float]:
        """The counters, over all streams that are or were open."""
        live = self._streams.values()
        sound = self._past["sound"] + sum(stream.total for stream in live)
        return {
            "streams": len(self._streams),
            **self.counters,
            "frames_entered": self._past["entered"] + sum(stream.entered for stream in live),
            "frames_needed": self._past["needed"] + sum(stream.needed for stream in live),
            "replaced": self._past["replaced"] + sum(stream.replaced for stream in live),
            "sound_s": seconds(sound),
            "busy_s": round(self.busy_us / 1e6, 3),
            "backlog_s": seconds(max((stream.backlog for stream in live), default=0)),
            "not_kept": self._keeper.lost if self._keeper else 0,
        }
