r"""The stages wired together, in the order sound passes them. READ SECOND.

    feed -> resample -> ring -> voice activity (worker) -> segment -> emotion (worker) -> replies -> fuse -> bus
                                                                   \-> words (worker) ----^ joined by a worker

Rows of many streams go to a worker in one batch (lanes.py, and recognition.py for words); which worker has which stream is
decided in placing.py; what waits for its words, in replies.py; what is given up when there is more to do than can be done, in
overload.py.
"""

import asyncio

import numpy as np
from numpy.typing import NDArray

from clser.engine import jobs, placing
from clser.engine.account import Account
from clser.engine.clock import Clock
from clser.engine.config import Config
from clser.engine.errors import ClserError, GivenError, OverloadedError
from clser.engine.herald import Herald
from clser.engine.lanes import Station, UnderWay
from clser.engine.logs import log
from clser.engine.opening import Opener, Owner
from clser.engine.overload import REFUSE, STEPS, Ladder
from clser.engine.pool import Pool
from clser.engine.publish import KEPT
from clser.engine.recognition import NOTHING, Recognition
from clser.engine.records import STREAM_NAME, State, samples, seconds
from clser.engine.replies import Reply
from clser.engine.restarts import all_of
from clser.engine.segment import Ended, Event
from clser.engine.speakers import Memory
from clser.engine.stream import StreamState
from clser.engine.tally import Tally
from clser.engine.track import Heard
from clser.engine.transcript import Transcript

FEW = 8
GATHER_S = 0.002

Numbers = NDArray[np.float32]


class Pipeline:
    """All streams. Call `take` with sound; results leave through the bus."""

    def __init__(
        self, config: Config, clock: Clock, pool: Pool, herald: Herald, recognition: Recognition | None = None
    ) -> None:
        self.config = config
        self._clock = clock
        self._pool = pool
        self._stations = [Station(number) for number in range(pool.workers)]
        self._herald = herald
        self.recognition = recognition
        """What writes down what is said, if anything does."""
        self._streams: dict[str, StreamState] = {}
        self._owners: dict[StreamState, Owner] = {}
        self._numbers: Tally[str] = Tally(KEPT)  # a name that is opened again goes on counting its utterances
        self.state: State = "starting"
        self.voice: jobs.VoiceCard | None = None
        """Known once a worker is ready."""
        self.speakers: Memory | None = None
        """Whom the model knows, if it is one that knows speakers."""
        self.failure: ClserError | None = None
        self._account = Account()
        self.counters = self._account.counters
        self._ladder = Ladder()
        self.busy_us = 0

    async def start(self) -> None:
        """Return when every worker is warm."""
        starting = () if self.recognition is None else (self.recognition.start(self),)
        ready, *there = await all_of(self._pool.start(self), *starting)
        assert isinstance(ready, jobs.Ready)
        self.recognition = self.recognition if all(there) else None
        if self.recognition is not None:
            self.recognition.joins(ready.joins)
        self._kept: dict[jobs.Lane, int] = {lane: ready.kept(lane) for lane in jobs.LANES}
        self.voice = ready.voice
        if ready.voice.speaker_numbers:
            self.speakers = Memory(self.config.speaker, ready.voice.speaker_numbers)
        self._opener = Opener(ready, self.speakers)
        self.configure(self.config)
        self.state = "degraded"
        self._turn("ready", f"{ready.voice.name} {ready.voice.digest}")

    def configure(self, config: Config) -> None:
        """From now on this counts; open streams keep what they were opened with."""
        self.config = config
        if self.voice is not None:
            self._herald.configure(config, self.voice)
        if self.recognition is not None:
            self.recognition.configure(config.asr)
        self.be_patient(config.asr.wait_ms / 1000, config.asr.late_s)
        if self.speakers is not None:
            self.speakers.configure(config.speaker)

    def be_patient(self, wait_s: float, late_s: float) -> None:
        """How long open streams wait for words."""
        for stream in self._streams.values():
            stream.replies.configure(wait_s, late_s)

    # --- streams --------------------------------------------------------------------------------------------------

    def open(self, name: str, speaker: str | None, owner: Owner, again: bool = False) -> StreamState:
        """A new stream; or, `again`, one that was open until just now and is let in whatever there is to do."""
        if not STREAM_NAME.fullmatch(name):
            raise GivenError(f"stream {name!r}: a name has 1 to 64 of A-Z a-z 0-9 . _ -")
        if name in self._streams or name.startswith("_"):
            why = (
                "it is open already (clser-stream: name the devices, as in --device left=file:PATH)"
                if name in self._streams
                else "names that begin with _ are the engine's own"
            )
            raise GivenError(f"stream {name!r}: {why}; take another name")
        if not again and not self._ladder.admits(self.config.overload, self._clock.monotonic_s()):
            self.counters["streams_refused"] += 1
            raise OverloadedError(
                f"stream {name!r}: this engine has more to do than it can; try again later, or elsewhere"
            )
        config, pace = self.config, self._ladder.pace
        stream = self._opener.stream(name, speaker, config, self._numbers.last(name), pace)
        placing.best(self._stations, self._clock.monotonic_s()).admit(stream)
        if self.recognition is not None:
            self.recognition.admit(stream)
        stream.last_arrival_s = self._clock.monotonic_s()
        self._streams[name] = stream
        self._owners[stream] = owner
        self.say("opened", stream=name)
        return stream

    @property
    def streams(self) -> int:
        return len(self._streams)

    def sounded(self, stream: StreamState) -> None:
        """It has more sound, and nothing else: the commonest thing of all."""
        if stream in self._owners and stream.vad_waiting():
            self._stations[stream.worker].lanes["vad"].waiting.offer(stream)
            self._wake(stream.worker)

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
        self._herald.gap(stream, missing, reason)
        log.warning("gap", stream=stream.name, count=missing, reason=reason)
        stream.barrier("gap", missing)
        self.touch(stream)

    def unread(self) -> None:
        """A result was dropped that nobody in this process read."""
        self._herald.unread()

    def tick(self, waits_s: float = 0.0) -> None:
        """Ten times a second: end utterances whose packets have stopped coming, remark on streams of zeros, and see whether
        there is more to do than can be done, or more with one worker than with another. `waits_s`: for so long sound, or this
        very call, has been waiting for the event loop.
        """
        now = self._clock.monotonic_s()
        self._look_at_load(now, waits_s * 1000)
        if self.speakers is not None:
            self.speakers.sweep(now)
        for stream in tuple(self._streams.values()):
            quiet_s = now - stream.last_arrival_s
            if (
                quiet_s * 1000 > self.config.segment.idle_ms
                and stream.segmenter.open is not None
                and stream.backlog < stream.vad_frame
                and not stream.held  # else it is we who keep the packets waiting
                and not stream.vad_waiting()
            ):
                stream.barrier("idle")
                self.touch(stream)
            if stream.total > samples(self.config.stream.silent_warn_s * 1000):
                self._herald.remark_silence(stream, self.state)
            if stream.acquaintance is not None:
                stream.acquaintance.look(stream.segmenter.position)
            if stream.replies:  # what waits for words may have waited long enough
                self.touch(stream)

    def _look_at_load(self, now: float, late_ms: float) -> None:
        for station in self._stations:
            late = max((stream.late for stream in station.streams if stream.live), default=0)
            late_ms = max(late_ms, seconds(late) * 1000)
            if seconds(late) * 1000 > self.config.overload.late_ms:
                station.late_at_s = now
        before = self._ladder.step
        if self.failure is None and self._ladder.look(self.config.overload, now, late_ms):
            step = self._ladder.step
            self.counters["overload_steps"] += step > before
            self._turn("overload" if step > before else "relief", f"step {step} of {REFUSE}: {STEPS[step]}")
            if self.recognition is not None and not self._ladder.pace.words:
                self.recognition.pause()
        for stream in placing.rebalance(self._stations, now):
            self.touch(stream)

    # --- batches out ----------------------------------------------------------------------------------------------

    def _wake(self, worker: int) -> None:
        """Look for work once the loop has handled what is there, so that packets that came together go together."""
        station = self._stations[worker]
        if station.woken:
            return
        station.woken = True
        loop = asyncio.get_running_loop()
        if len(station.streams) > FEW:  # a moment's patience makes one batch of what many streams bring
            loop.call_later(GATHER_S, self._pump, worker)
        else:
            loop.call_soon(self._pump, worker)

    def _pump(self, worker: int) -> None:
        station = self._stations[worker]
        station.woken = False
        if not station.up or self.failure is not None:
            return
        for lane in jobs.LANES:
            if batch := station.next_batch(lane, self._clock.monotonic_s()):
                self._pool.submit(worker, *batch)

    # --- answers in (the pool's listener) -------------------------------------------------------------------------

    def answered(self, worker: int, answer: jobs.Answer, numbers: NDArray[np.float32]) -> None:
        said = self._stations[worker].take_answer(answer, numbers, self._kept[answer.lane])
        self.busy_us += answer.busy_us if said else 0
        now = self._clock.monotonic_s()
        for each in said:
            stream = each.row.stream
            if stream not in self._owners:
                continue  # it was abandoned meanwhile
            try:
                self._answer(*each, now)
            except Exception:  # noqa: BLE001 - our mistake; it may cost this stream, but not the others of the batch
                log.exception("stream_broken", stream=stream.name)
                self._break_off(stream)
        self._wake(worker)

    def _answer(self, row: UnderWay, said: Numbers, state: Numbers | None, now: float) -> None:
        if row.reply is not None:
            row.reply.both, row.reply.joining = said[0], False
        elif row.track is None:
            self._hear(row.stream, row.stream.hear_vad(said[:, 0], state), now)
        else:
            row.track.answers.extend(said)
            row.track.answered_s = now
            if state is not None and row.stream.acquaintance is not None:
                row.stream.acquaintance.note(row.track, state)
        self._settle(row.stream)

    def lost(self, worker: int, why: str) -> None:
        station = self._stations[worker]
        station.lose()
        self.counters["workers_lost"] += 1
        self._turn("worker_lost", f"worker {worker}: {why}")
        for stream in placing.evacuate(station, self._stations, self._clock.monotonic_s()):
            self.touch(stream)

    def fell_back(self, worker: int, why: str) -> None:
        self.counters["fell_back"] += 1
        self._turn("fell_back", f"worker {worker}: {why}")

    def back(self, worker: int) -> None:
        self._stations[worker].up = True
        self._turn("worker_back", f"worker {worker}")
        for stream in tuple(self._stations[worker].streams):
            self.touch(stream)

    def failed(self, error: ClserError) -> None:
        self.failure = error
        self._turn("failed", str(error))
        self.abandon()

    def abandon(self) -> None:
        """End every stream as it is; what is due is given up."""
        for stream in tuple(self._streams.values()):
            self._break_off(stream)

    def _break_off(self, stream: StreamState) -> None:
        stream.tracks.clear()
        stream.replies.clear()
        self._end(stream)

    # --- words (the recognition's reader) -------------------------------------------------------------------------

    def landed(self, stream: StreamState, transcript: Transcript, news: bool) -> None:
        if news:
            stream.replies.landed(transcript)
        if transcript.complete or news:
            self.touch(stream)

    def unhopeful(self) -> None:
        for stream in tuple(self._streams.values()):
            self.touch(stream)

    # --- decisions ------------------------------------------------------------------------------------------------

    def _hear(self, stream: StreamState, heard: Heard, now: float) -> None:
        self._follow(stream, heard.events, now)
        self._herald.frames(stream, heard)

    def _follow(self, stream: StreamState, events: list[Event], now: float) -> None:
        stream.follow(events, now)
        self.counters["withdrawn"] += sum(isinstance(each, Ended) and each.reason == "too_short" for each in events)
        self._herald.speech(stream, events)

    def _settle(self, stream: StreamState) -> None:
        """Give what is due, pass the barriers that can be passed, and queue what is to be computed."""
        now = self._clock.monotonic_s()
        answered = True
        while answered:  # a gap may have waited for nothing but the final
            while passed := stream.pass_barrier():
                barrier, events = passed
                self._follow(stream, events, now)
                if barrier.last:
                    stream.ended = True
            answered = False
            for reply in stream.answers_due():
                self._take(stream, reply, now)
                answered = True
            for reply, stage in stream.replies.due(now, self.recognition is not None and self.recognition.up):
                self.counters[f"{stage}s" if stage != "amended" else stage] += 1
                self._owners[stream].answered(self._herald.result(stream, reply, stage))
        if stream.ended and not stream.tracks and not stream.replies:
            self._end(stream)
        else:
            self._stations[stream.worker].offer(stream)
            if self.recognition is not None:
                self.recognition.offer(stream)
        if stream in self._owners:
            self._owners[stream].progressed()

    def _take(self, stream: StreamState, reply: Reply, now: float) -> None:
        """The voice has answered."""
        stream.replies.take(reply, now)
        utterance = reply.mark.utterance
        if utterance.stage != "final":
            return
        if self._herald.hears_speech(stream, reply):
            stream.learn(reply.track, utterance, now)
        self._herald.hold(stream, reply)
        if reply.transcript is not None and not reply.written:  # it is to go out on time, whatever else happens
            asyncio.get_running_loop().call_later(self.config.asr.wait_ms / 1000, self.touch, stream)

    def _end(self, stream: StreamState) -> None:
        if self._streams.get(stream.name) is not stream:
            return  # it ended before, and its name may be somebody else's by now
        del self._streams[stream.name]
        self._numbers.put(stream.name, stream.segmenter.last_number)
        stream.ended = True
        if stream.acquaintance is not None:
            stream.acquaintance.close()
        self._stations[stream.worker].release(stream)
        if self.recognition is not None:
            self.recognition.release(stream)
        self._account.close(stream)
        if stream.total:
            self._herald.remark_silence(stream, self.state)
        drift = {} if stream.drift_ppm is None else {"drift_ppm": stream.drift_ppm}
        self.say("closed", stream=stream.name, extra=drift)
        self._owners.pop(stream).progressed()

    # --- messages -------------------------------------------------------------------------------------------------

    def _turn(self, event: str, detail: str) -> None:
        """Something has changed how well the engine is."""
        if self.failure is not None:
            self.state = "failed"
        elif self.state not in ("starting", "stopping"):
            well = all(station.up for station in self._stations) and not self._ladder.step
            self.state = "ready" if well else "degraded"
        # the all-clear is as loud as what it ends, or a log shows troubles only
        (log.info if event == "ready" else log.warning if self.state == "ready" else log.error)(event, detail=detail)
        self.say(event, detail)

    def say(
        self, event: str, detail: str = "", stream: str | None = None, extra: dict[str, float] | None = None
    ) -> None:
        """Publish a status, with the pipeline's counters if it is the engine's own."""
        counters = {**({} if stream else self.totals()), **(extra or {})}
        self._herald.status(self.state, event, detail, stream, counters)

    def totals(self) -> dict[str, float]:
        """The counters, over all streams that are or were open."""
        return {
            **self._account.totals(self._streams.values()),
            **(NOTHING if self.recognition is None else self.recognition.totals()),
            "overload_step": self._ladder.step,
            "busy_s": round(self.busy_us / 1e6, 3),
            "not_kept": self._herald.not_kept,
        }
