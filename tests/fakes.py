"""A fake for each of the engine's seams: time, and the workers; and sound for them to hear.

The networks are cheap and have real state: what they say of a frame depends on everything heard since the state was
started, so a frame that is left out, heard twice or heard by the wrong stream shows in every later answer.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from clser.engine import jobs
from clser.engine.api import Engine
from clser.engine.config import from_values
from clser.engine.errors import ClserError, FailedError
from clser.engine.pool import Listener
from clser.engine.records import Message, Result, Samples
from clser.models.labels import HEADS

T = TypeVar("T")

VAD_FRAME = 512
VOICE_FRAME = 320
RATE_HZ = 16_000
LOUD = 500  # mean magnitude from which the scripted network calls a frame speech


def run(main: Coroutine[Any, Any, T], limit_s: float = 30.0) -> T:
    """asyncio.run, but an error in any callback fails the test, and so does hanging."""
    troubles: list[dict[str, Any]] = []

    async def guarded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        async with asyncio.timeout(limit_s):
            return await main

    result = asyncio.run(guarded())
    if troubles:
        raise troubles[0].get("exception") or AssertionError(troubles[0]["message"])
    return result


async def settle(*progress: Callable[[], object]) -> None:
    """Let everything that can happen without time passing happen."""
    before, still = None, 0
    while still < 20:
        await asyncio.sleep(0)
        now = [look() for look in progress]
        still = still + 1 if now == before else 0
        before = now


class ManualClock:
    """Time that moves when told to."""

    START_US = 1_700_000_000_000_000

    def __init__(self) -> None:
        self.now_s = 100.0
        self.set_us = 0
        """By how much somebody has set the wall clock."""
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_us(self) -> int:
        return self.START_US + self.set_us + round((self.now_s - 100.0) * 1e6)

    async def sleep(self, seconds: float) -> None:
        awake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now_s + seconds, next(self._order), awake))
        await awake

    async def advance(self, seconds: float) -> None:
        """Wake all whose time comes, in order, each with the clock at its time."""
        await settle()
        end = self.now_s + seconds
        while self._sleepers and self._sleepers[0][0] <= end + 1e-9:
            self.now_s, _, awake = heapq.heappop(self._sleepers)
            if not awake.done():
                awake.set_result(None)
            await settle()
        self.now_s = end
        await settle()


# --- networks ---------------------------------------------------------------------------------------------------------

CARD = jobs.VoiceCard(
    name="fake",
    version="1",
    sample_rate_hz=RATE_HZ,
    frame_samples=VOICE_FRAME,
    heads=HEADS,
    least_s=0.5,
    abstain_below=0.0,
    affect_source="circumplex",
    digest="0123456789abcdef",
)
_WEIGHTS = np.random.default_rng(7).normal(0, 1.5, (len(HEADS), 4))


def vad_step(state: float, frame: Samples) -> tuple[float, float]:
    """(state, probability) after a frame: loud or not, smeared a little over time."""
    state = 0.5 * state + 0.5 * float(np.abs(frame.astype(np.int32)).mean() >= LOUD)
    return state, state


KNOWING = msgspec.structs.replace(CARD, speaker_numbers=5)
"""Of a network that knows speakers: an utterance tells of them 1 and its state; it answers from how that differs from theirs."""


def voice_step(state: NDArray[np.float64], frame: Samples) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """(state, logits) after a frame."""
    sound = frame / 32768.0
    seen = np.array([1.0, np.abs(sound).mean() * 10, sound[::7].sum(), np.abs(np.diff(sound)).mean() * 5])
    state = 0.97 * state + 0.1 * seen
    return state, (_WEIGHTS @ state).astype(np.float32)


def voice_logits(sound: Samples) -> NDArray[np.float32]:
    """What the model says after hearing all whole frames of `sound` from the start."""
    state, logits = np.zeros(4), np.zeros(len(HEADS), np.float32)
    for frame in sound[: len(sound) // VOICE_FRAME * VOICE_FRAME].reshape(-1, VOICE_FRAME):
        state, logits = voice_step(state, frame)
    return logits


def tells(state: NDArray[np.float64]) -> NDArray[np.float32]:
    """What an utterance tells of its speaker, where the network knows speakers."""
    return np.concatenate(([1.0], state)).astype(np.float32)


def usual(sums: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits of what is usual for a speaker of whom that is known: what is taken away from an answer."""
    return (_WEIGHTS @ (sums[1:] / (1.0 + sums[0]))).astype(np.float32)


def joined(told: NDArray[np.float32], suspect: bool) -> NDArray[np.float32]:
    """What a worker makes of the voice's logits and what the words told, one after the other."""
    voice, words = told[: len(HEADS)], told[len(HEADS) : len(HEADS) + jobs.CLASSES]
    weight = 0.1 if suspect else 0.5
    return np.concatenate(
        (voice + weight * np.resize(words, len(HEADS)), words, (1 - weight, weight)), dtype=np.float32
    )


@dataclass
class UnderWay:
    worker: int
    batch: jobs.Batch
    numbers: NDArray[np.float32]


@dataclass
class _FakeWorker:
    up: bool = True
    vad: dict[int, float] = field(default_factory=dict)
    voice: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    known: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    card: jobs.VoiceCard = CARD

    def run(self, batch: jobs.Batch, pcm: Samples) -> NDArray[np.float32]:
        size = VAD_FRAME if batch.lane == "vad" else VOICE_FRAME
        frames = iter(pcm.reshape(-1, size))
        out: list[NDArray[np.float32]] = []
        self._take_given(batch)
        for slot, count, fresh in ((row.slot, row.frames, row.fresh) for row in batch.rows):
            if fresh:
                self.vad.update({slot: 0.0} if batch.lane == "vad" else {})
                self.voice.update({slot: np.zeros(4)} if batch.lane == "voice" else {})
            for _ in range(count):
                if batch.lane == "vad":
                    self.vad[slot], probability = vad_step(self.vad[slot], next(frames))
                    out.append(np.array([probability], np.float32))
                else:
                    self.voice[slot], logits = voice_step(self.voice[slot], next(frames))
                    out.append(logits - usual(self.known[slot]) if self.card.speaker_numbers else logits)
        assert next(frames, None) is None, "more sound than the rows speak of"
        keeping = [row.slot for row in batch.rows if row.keep]
        if batch.lane == "vad":
            kept = [np.array([self.vad[slot]], np.float32) for slot in keeping]
        else:
            assert not keeping or self.card.speaker_numbers, "asked of a network that knows nobody"
            kept = [tells(self.voice[slot]) for slot in keeping]
        return np.concatenate([each.ravel() for each in [*out, *kept]])

    def join(self, batch: jobs.Batch) -> NDArray[np.float32]:
        """The voice's logits with half of what the words tell added to each head; nothing of a suspect text."""
        told = np.frombuffer(batch.states, np.float32).reshape(len(batch.rows), -1)
        if told.shape[1] < len(HEADS) + jobs.CLASSES:  # of a model that reads the text itself
            told = np.pad(told, ((0, 0), (0, jobs.CLASSES)))
        return np.concatenate([joined(each, row.suspect) for each, row in zip(told, batch.rows, strict=True)])

    def _take_given(self, batch: jobs.Batch) -> None:
        each = 1 if batch.lane == "vad" else self.card.speaker_numbers
        given = np.frombuffer(batch.states, np.float32)
        rows = [row for row in batch.rows if row.given]
        assert len(given) == each * len(rows), "more or fewer states than the rows speak of"
        states = dict(zip([row.slot for row in rows], given.reshape(len(rows), each), strict=True))
        if batch.lane == "vad":
            self.vad.update({slot: float(state[0]) for slot, state in states.items()})
        else:
            nobody = np.zeros(self.card.speaker_numbers, np.float32)
            assert all(row.fresh for row in rows), "a speaker who changes in mid-utterance"
            self.known.update({row.slot: states.get(row.slot, nobody) for row in batch.rows if row.fresh})


class FakePool:
    """Workers in this process. Answers come by themselves on the next turn of the loop, unless their lane is held."""

    def __init__(
        self, workers: int = 1, hold: Iterable[jobs.Lane] = (), card: jobs.VoiceCard = CARD, joins: jobs.Joins = "not"
    ) -> None:
        self._card, self._joins = card, joins
        self.held: set[jobs.Lane] = set(hold)
        self.under_way: list[UnderWay] = []
        self.batches: list[tuple[int, jobs.Batch]] = []
        self.sounds: dict[jobs.Lane, list[Samples]] = {lane: [] for lane in jobs.LANES}
        self.refuse: ClserError | None = None
        self.stopped = False
        self.loaded: list[bytes] = []
        self._workers = [_FakeWorker(card=card) for _ in range(workers)]

    # What the pipeline calls.

    async def start(self, listener: Listener) -> jobs.Ready:
        if self.refuse is not None:
            raise self.refuse
        self._listener = listener
        return jobs.Ready(VAD_FRAME, self._card, vad_state=1, joins=self._joins)

    @property
    def workers(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        return []

    def submit(self, worker: int, batch: jobs.Batch, pcm: Samples) -> None:
        at = self._workers[worker]
        assert at.up, "a batch for a worker that is down"
        assert not any(u.worker == worker and u.batch.lane == batch.lane for u in self.under_way), "one batch a lane"
        assert batch.rows and all(row.frames > 0 or batch.lane == "both" for row in batch.rows), "a row without work"
        assert len({row.slot for row in batch.rows}) == len(batch.rows), "a slot twice in one batch"
        self.batches.append((worker, batch))
        self.sounds[batch.lane].append(pcm)
        job = UnderWay(worker, batch, at.join(batch) if batch.lane == "both" else at.run(batch, pcm))
        self.under_way.append(job)
        if batch.lane not in self.held:
            asyncio.get_running_loop().call_soon(self.answer, job)

    async def load(self, delta: bytes) -> jobs.VoiceCard:
        """As the pools of the engine: all workers, or none; `refuse` says why none."""
        await asyncio.sleep(0)
        if self.refuse is not None:
            raise self.refuse
        self.loaded.append(delta)
        digest = f"{self._card.digest}+{len(delta)}" if delta else self._card.digest
        return msgspec.structs.replace(self._card, digest=digest)

    async def stop(self) -> None:
        self.stopped = True

    # What a test calls.

    def answer(self, job: UnderWay) -> None:
        """Answer this one, unless it was lost."""
        if job in self.under_way:
            self.under_way.remove(job)
            self._listener.answered(job.worker, jobs.Answer(job.batch.number, job.batch.lane, 10), job.numbers)

    def answer_late(self, job: UnderWay) -> None:
        """A dead worker's last words."""
        self._listener.answered(job.worker, jobs.Answer(job.batch.number, job.batch.lane, 10), job.numbers)

    def release(self, *lanes: jobs.Lane) -> None:
        """Answer what was held, and hold no longer."""
        self.held -= set(lanes or jobs.LANES)
        for job in tuple(self.under_way):
            if job.batch.lane not in self.held:
                self.answer(job)

    def lose(self, worker: int = 0, why: str = "it was killed by signal 9") -> None:
        at = self._workers[worker]
        assert at.up
        at.up = False
        at.vad.clear()
        at.voice.clear()
        at.known.clear()
        self.under_way = [job for job in self.under_way if job.worker != worker]
        self._listener.lost(worker, why)

    def fall_back(self, worker: int = 0, why: str = "cuda:0 is left for the CPU: CUDA error") -> None:
        self._listener.fell_back(worker, why)

    def come_back(self, worker: int = 0) -> None:
        self._workers[worker].up = True
        self._listener.back(worker)

    def fail(self, error: ClserError | None = None) -> None:
        self._listener.failed(error or FailedError("worker 0 went down 6 times in 60 s"))

    def rows(self, lane: jobs.Lane) -> list[jobs.Row]:
        return [row for _, batch in self.batches if batch.lane == lane for row in batch.rows]


# --- sound ------------------------------------------------------------------------------------------------------------

Script = Sequence[tuple[bool, int]]


def sound(script: Script, seed: int = 1) -> Samples:
    """(speech?, milliseconds) after (speech?, milliseconds). No two stretches of speech are alike."""
    rng = np.random.default_rng(seed)
    pieces = []
    for loud, length_ms in script:
        count = length_ms * RATE_HZ // 1000
        level = rng.uniform(2000, 8000) if loud else 10.0
        pieces.append(np.clip(rng.normal(0, level, count), -32000, 32000).astype(np.int16))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


# --- an engine on fakes -----------------------------------------------------------------------------------------------


class Rig:
    """An engine without processes, sockets or time: `async with Rig() as rig`."""

    def __init__(
        self,
        *,
        workers: int = 1,
        hold: Iterable[jobs.Lane] = (),
        card: jobs.VoiceCard = CARD,
        joins: jobs.Joins = "not",
        scribes: Any = None,
        **sections: dict[str, Any],
    ) -> None:
        self.clock = ManualClock()
        self.pool = FakePool(workers, hold, card, joins)
        self.scribes = scribes
        values = {**sections, "bus": {"publish": "", **sections.get("bus", {})}}
        self.engine = Engine(from_values(values, "test"), self.clock, self.pool, scribes)
        self.messages: list[Message] = []

    async def __aenter__(self) -> "Rig":
        self.engine._bus.tap(self.messages.append, lambda: None, False)
        await self.engine.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.pool.release()
        if self.scribes is not None:
            self.scribes.release()
        await self.engine.__aexit__(*error)

    @property
    def pipeline(self) -> Any:
        return self.engine._pipeline

    async def settle(self) -> None:
        await settle(lambda: len(self.pool.batches), lambda: len(self.pool.under_way), lambda: len(self.messages))

    def of(self, kind: type[T], stream: str | None = None) -> list[T]:
        return [m for m in self.messages if isinstance(m, kind) and stream in (None, m.stream)]

    def finals(self, stream: str | None = None) -> list[Result]:
        return [result for result in self.of(Result, stream) if result.stage == "final"]

    def events(self, stream: str | None = None) -> list[tuple[str, str]]:
        """(event, stream) of each status but heartbeats."""
        from clser.engine.records import Status

        return [(m.event, m.stream) for m in self.of(Status, stream) if m.event != "heartbeat"]
