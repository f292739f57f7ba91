"""What a pool tells its owner, written down, with a way to wait for it."""

import asyncio

import numpy as np

from clser.engine import jobs
from clser.engine.errors import ClserError


class News:
    """A listener (see pool.py): `told` holds (event, its words) in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.answers: dict[int, np.ndarray] = {}
        self.error: ClserError | None = None
        self._something = asyncio.Event()

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.told]

    def words(self, event: str) -> str:
        """Of the last event of that name."""
        return next(words for name, words in reversed(self.told) if name == event)

    async def until(self, event: str, times: int = 1) -> None:
        """Return when it was told so often."""
        while self.events.count(event) < times:
            self._something.clear()
            await self._something.wait()

    def answered(self, worker: int, answer: jobs.Answer, numbers: np.ndarray) -> None:
        assert answer.number not in self.answers, "a batch is answered once"
        self.answers[answer.number] = numbers
        self._tell("answered", f"{answer.lane} {answer.number}")

    def lost(self, worker: int, why: str) -> None:
        self._tell("lost", why)

    def fell_back(self, worker: int, why: str) -> None:
        self._tell("fell_back", why)

    def back(self, worker: int) -> None:
        self._tell("back", str(worker))

    def failed(self, error: ClserError) -> None:
        self.error = error
        self._tell("failed", str(error))

    def _tell(self, event: str, words: str) -> None:
        self.told.append((event, words))
        self._something.set()
