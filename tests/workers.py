"""A pool of real workers, whose voice model does what it is told (see faulty/voice.py)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from news import News

from clser.engine import jobs
from clser.engine.clock import RealClock
from clser.engine.pool import Pool, PoolConfig, open_pool
from clser.engine.vad import VadConfig
from clser.engine.worker import WorkerConfig

TESTS = Path(__file__).parent
FRAME = 320


class Place:
    """A pool of one worker, whose voice model does what it is told."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.news = News()
        worker = WorkerConfig(VadConfig(network="webrtc"), str(folder), backend="faulty.voice")
        self.pool: Pool = open_pool(PoolConfig(**config), worker, folder / "run", RealClock())
        self.batches = 0

    def tell(self, moment: str, command: str) -> None:
        (self.folder / moment).write_text(command)

    def send(self) -> int:
        self.batches += 1
        self.pool.submit(0, jobs.Batch(self.batches, "voice", (jobs.Row(0, 1, True),)), np.zeros(FRAME, np.int16))
        return self.batches

    async def works(self) -> None:
        """A batch is answered by the worker that is up now."""
        number = self.send()
        await self.news.until("answered", len(self.news.answers) + 1)
        assert self.news.answers[number][0] == self.pool.pids[0]

    async def goes_down(self) -> str:
        """Send the batch on which it does, and wait until it is back. Why it was lost."""
        before = self.news.events.count("back")
        self.send()
        await self.news.until("back", before + 1)
        return self.news.words("lost")

    @property
    def starts(self) -> list[str]:
        return (self.folder / "starts").read_text().splitlines()


async def eventually(look: Callable[[], bool]) -> None:
    """Another process's doings send no event."""
    while not look():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@asynccontextmanager
async def started(folder: Path, settings: dict[str, Any], **config: Any) -> AsyncIterator[Place]:
    place = Place(folder, **settings, **config)
    try:
        ready = await place.pool.start(place.news)
        assert ready.voice.name == "faulty"
        await place.works()
        yield place
    finally:
        await place.pool.stop()
