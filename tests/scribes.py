"""A fake pool of recognisers: every quarter of a second of an utterance is a word, whose name tells what was heard in it.

So a sample that is left out, heard twice or heard by the wrong stream shows in the words.
"""

import asyncio
import zlib
from dataclasses import dataclass, field

import numpy as np
from fakes import UnderWay
from numpy.typing import NDArray

from clser.engine import jobs
from clser.engine.errors import ClserError, FailedError
from clser.engine.pool import Listener
from clser.engine.records import Samples

WORD = 4_000
TELLS = jobs.CLASSES + 2
CARD = jobs.RecogniserCard("fake", "fedcba9876543210", ("en",), step_ms=500)


def name_of(sound: Samples) -> str:
    """The word that this sound is."""
    return f"w{zlib.crc32(sound.tobytes()) % 10_000:04d}"


def words_of(sound: Samples) -> list[str]:
    """What whole sound says: a word begun and more than half said counts."""
    cut = [sound[at : at + WORD] for at in range(0, len(sound), WORD)]
    return [name_of(piece) for piece in cut if len(piece) > WORD // 2]


def told_of(text: str) -> NDArray[np.float32]:
    """What such a text tells."""
    if not text:
        return np.zeros(TELLS, np.float32)
    return np.random.default_rng(zlib.crc32(text.encode())).normal(0, 2, TELLS).astype(np.float32)


@dataclass
class _Worker:
    up: bool = True
    sounds: dict[int, Samples] = field(default_factory=dict)


class FakeScribes:
    """Workers in this process. Answers come by themselves on the next turn of the loop, unless they are held."""

    def __init__(self, workers: int = 1, held: bool = False, tells: int = TELLS) -> None:
        self.held = held
        self.mute = False
        """It writes nothing."""
        self.suspicious = False
        """It mistrusts what it writes."""
        self.batches: list[tuple[int, jobs.Batch]] = []
        self.under_way: list[tuple[UnderWay, tuple[jobs.Words, ...]]] = []
        self._tells = tells
        self._workers = [_Worker() for _ in range(workers)]

    # What the recognition calls.

    async def start(self, listener: Listener) -> jobs.AnyReady:
        self._listener = listener
        return jobs.ReadyWords(CARD, self._tells)

    @property
    def workers(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        return []

    def submit(self, worker: int, batch: jobs.Batch, pcm: Samples) -> None:
        at = self._workers[worker]
        assert at.up and batch.lane == "words", "a batch for a worker that is down, or of another kind"
        assert not any(job.worker == worker for job, _ in self.under_way), "one batch at a time"
        assert len({row.slot for row in batch.rows}) == len(batch.rows), "a slot twice in one batch"
        assert sum(row.frames for row in batch.rows) == len(pcm)
        self.batches.append((worker, batch))
        words = tuple(self._write(at, row, sound) for row, sound in _rows(batch, pcm))
        told = [told_of(each.text) for each in words] if self._tells else []
        numbers = np.concatenate(told) if told else np.zeros(0, np.float32)
        self.under_way.append((UnderWay(worker, batch, numbers), words))
        if not self.held:
            asyncio.get_running_loop().call_soon(self.answer)

    async def stop(self) -> None:
        pass

    def _write(self, at: _Worker, row: jobs.Row, new: Samples) -> jobs.Words:
        assert row.fresh or row.slot in at.sounds, "it goes on with what it never heard"
        sound = at.sounds[row.slot] = new if row.fresh else np.concatenate((at.sounds[row.slot], new))
        names = words_of(sound) if row.anew or row.last else words_of(sound[: len(sound) // WORD * WORD])
        if self.mute:
            names = []
        words = tuple(
            jobs.Word(f" {name}", n * WORD, min((n + 1) * WORD, len(sound)), 0.9) for n, name in enumerate(names)
        )
        stable = len(words) if row.last else max(0, len(words) - 1)
        return jobs.Words(words, stable, "en", 0.9, self.suspicious, whole=row.anew or row.last)

    # What a test calls.

    def answer(self) -> None:
        """Answer what is under way, if anything is."""
        if self.under_way:
            job, words = self.under_way.pop(0)
            answer = jobs.Answer(job.batch.number, "words", 1000, words)
            self._listener.answered(job.worker, answer, job.numbers)

    def release(self) -> None:
        """Answer what was held, and hold no longer."""
        self.held = False
        while self.under_way:
            self.answer()

    def lose(self, worker: int = 0) -> None:
        self._workers[worker].up = False
        self._workers[worker].sounds.clear()
        self.under_way = [job for job in self.under_way if job[0].worker != worker]
        self._listener.lost(worker, "it was killed by signal 9")

    def come_back(self, worker: int = 0) -> None:
        self._workers[worker].up = True
        self._listener.back(worker)

    def fail(self, error: ClserError | None = None) -> None:
        self._listener.failed(error or FailedError("worker 0 went down 6 times in 60 s"))

    @property
    def rows(self) -> list[jobs.Row]:
        return [row for _, batch in self.batches for row in batch.rows]


def _rows(batch: jobs.Batch, pcm: Samples) -> list[tuple[jobs.Row, Samples]]:
    cuts = np.cumsum([row.frames for row in batch.rows])[:-1]
    return list(zip(batch.rows, np.split(pcm, cuts), strict=True))
