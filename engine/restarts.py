"""Workers that go down and come back, wherever they run: watched, restarted a limited number of times, moved off a broken device.

A `Seat` is where one worker runs, one life after another; a `Member` is the worker through all its lives; `Restarts`
decides, without clock or loop, whether there is another life and on which device; a `Crew` is all members: a `Pool`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import numpy as np
import zmq
from msgspec import Struct
from numpy.typing import NDArray

from clser.engine import jobs
from clser.engine.clock import Clock
from clser.engine.errors import ClserError, FailedError, GivenError, MissingError
from clser.engine.logs import log
from clser.engine.pool import Listener, PoolConfig
from clser.engine.records import Samples

WATCH_S = 0.5

Heard = Callable[[jobs.Answer, NDArray[np.float32]], None]


class Down(Struct, frozen=True):
    """How a worker went down."""

    why: str
    device: bool = False
    """It was its device that broke."""
    starting: bool = False
    """It never came up."""


class Restarts:
    """Whether one worker may come back, and on which device. Pure: the time is an argument."""

    def __init__(self, config: PoolConfig, worker: int, device: str, kind: str = "worker") -> None:
        self._config = config
        self._worker, self._kind = worker, kind
        self._times: deque[float] = deque()
        self._device_broke_s: float | None = None
        self.device = device
        """Where its next life is computed."""

    def allow(self, down: Down, now_s: float) -> str:
        """Count a restart; FailedError where there were too many. Why it moves to the CPU, if it does so now."""
        window_s = self._config.restart_window_s
        self._times.append(now_s)
        while self._times and now_s - self._times[0] > window_s:
            self._times.popleft()
        if len(self._times) > self._config.restarts:
            raise FailedError(
                f"{self._kind} {self._worker} went down {len(self._times)} times in {window_s:.0f} s, "
                f"the last time because {down.why}: see standard error, then start the engine again"
            )
        if self.device == "cpu" or not (down.device or down.starting):
            return ""
        last_s, self._device_broke_s = self._device_broke_s, now_s
        if not down.starting and (last_s is None or now_s - last_s > window_s):
            return ""
        left, self.device = self.device, "cpu"
        return f"{left} is left for the CPU: {down.why}"


class Silence:
    """How long nothing was heard, in time that we were there to hear it.

    It counts looks, not time: an engine that was stopped itself, or whose loop stood still, must not blame its workers.
    """

    def __init__(self) -> None:
        self._looks = 0

    def heard(self) -> None:
        self._looks = 0

    def look(self) -> float:
        """Seconds of silence, after another `WATCH_S` without a word."""
        self._looks += 1
        return self._looks * WATCH_S


class Seat(Protocol):
    """Where one worker runs, one life after another."""

    async def launch(self, device: str, heard: Heard) -> jobs.AnyReady:
        """Start it and wait until it is warm. An error of the tree where it does not come up."""

    async def ended(self) -> Down:
        """Return when it is gone, or as good as gone."""

    def submit(self, batch: jobs.Batch, pcm: Samples) -> None: ...
    async def load(self, load: jobs.Load) -> jobs.Loaded | None:
        """Have it make that ready. None where it is gone before it says how it went."""

    def switch(self, number: int) -> None:
        """Have it answer with what was made ready by the load of that number."""

    def disown(self, why: str) -> None:
        """What it says cannot be trusted: it counts as gone."""

    async def end(self, patience_s: float = 0.0) -> None:
        """Leave nothing of it behind, once it had `patience_s` to end by itself."""


def came_up(first: jobs.AnyReady | jobs.Broken) -> jobs.AnyReady:
    """A worker's first words: that it is ready, or the error that keeps it from being so."""
    if isinstance(first, jobs.Broken):
        raise {2: GivenError, 3: MissingError}.get(first.exit_code, FailedError)(first.message)
    return first


class Member:
    """One worker, through all its lives."""

    def __init__(self, number: int, seat: Seat, restarts: Restarts, clock: Clock) -> None:
        self._number = number
        self._seat = seat
        self._restarts = restarts
        self._clock = clock
        self._up = False
        self._watching: asyncio.Task[None] | None = None
        self._ready: jobs.AnyReady | None = None
        self._asked: dict[jobs.Lane, jobs.Batch] = {}
        """What it has not answered yet."""
        self._load: jobs.Load | None = None
        """What it answers with, in this life and the next ones."""
        self._prepared = 0
        """The number of the load that it has made ready in this life."""

    async def start(self, listener: Listener) -> jobs.AnyReady:
        self._listener = listener
        try:
            ready = await self._launch()
        except BaseException:
            await self._seat.end()
            raise
        self._watching = asyncio.create_task(self._watch(), name=f"watch worker {self._number}")
        return ready

    def submit(self, batch: jobs.Batch, pcm: Samples) -> None:
        assert self._up, "a batch for a worker that is down"
        self._asked[batch.lane] = batch
        self._seat.submit(batch, pcm)

    def lacks(self, load: jobs.Load) -> bool:
        """Whether it is up, and has not made that ready."""
        return self._up and self._prepared != load.number

    async def prepare(self, load: jobs.Load) -> jobs.Loaded | None:
        """Make it ready. None where the worker is gone meanwhile."""
        loaded = await self._seat.load(load)
        if loaded is not None and loaded.card is not None and loaded.number == load.number:
            self._prepared = load.number
        return loaded

    def switch(self, load: jobs.Load) -> None:
        """Answer with it, now if it is up, and whenever it comes back."""
        self._load = load
        if self._up:
            assert self._prepared == load.number
            self._seat.switch(load.number)

    def _heard(self, answer: jobs.Answer, numbers: NDArray[np.float32]) -> None:
        assert self._ready is not None
        why = jobs.nonsense(self._asked.pop(answer.lane, None), answer, numbers, self._ready)
        if why:
            self._seat.disown(f"it spoke nonsense: {why}")
        else:
            self._listener.answered(self._number, answer, numbers)

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        was_up, self._up = self._up, False
        await self._seat.end(patience_s=2.0 if was_up else 0.0)

    async def _launch(self) -> jobs.AnyReady:
        self._asked.clear()
        self._prepared = 0
        self._ready = await self._seat.launch(self._restarts.device, self._heard)
        while (load := self._load) is not None and load.delta and self._prepared != load.number:
            loaded = await self._prepared_anew(load)
            if loaded is None or loaded.card is None:
                why = loaded.why if loaded is not None else "it went down"
                raise FailedError(f"worker {self._number} could not take its delta again: {why}")
            if load is self._load:
                self._seat.switch(load.number)
        self._up = True
        return self._ready

    async def _prepared_anew(self, load: jobs.Load) -> jobs.Loaded | None:
        """As `prepare`, where nobody watches the worker yet."""
        preparing, ending = asyncio.create_task(self.prepare(load)), asyncio.create_task(self._seat.ended())
        try:
            await asyncio.wait((preparing, ending), return_when=asyncio.FIRST_COMPLETED)
            return await preparing if preparing.done() else None
        finally:
            for way in (preparing, ending):
                way.cancel()
            await asyncio.gather(preparing, ending, return_exceptions=True)

    async def _watch(self) -> None:
        """Bring the worker back whenever it dies or falls silent, until it does so too often."""
        try:
            while True:
                down = await self._seat.ended()
                self._up = False
                self._listener.lost(self._number, down.why)
                moved = await self._come_back(down)
                if moved:
                    self._listener.fell_back(self._number, moved)
                self._listener.back(self._number)
        except ClserError as error:
            self._listener.failed(error)
        except Exception as error:  # noqa: BLE001 - our mistake; unwatched, the engine would only seem to be well
            log.exception("watch_broken", worker=self._number)
            self._listener.failed(FailedError(f"watching worker {self._number} broke: {error!r}; please report it"))

    async def _come_back(self, down: Down) -> str:
        """Try until it is up again. Why it moved to the CPU, if it did; an error where there is no sense in trying."""
        moved = ""
        while True:
            await self._seat.end()
            moved = self._restarts.allow(down, self._clock.monotonic_s()) or moved
            try:
                await self._launch()
            except (ClserError, OSError, zmq.ZMQError) as error:
                if isinstance(error, GivenError | MissingError) and self._restarts.device == "cpu":
                    raise  # the next try would end the same
                log.warning("worker_not_started", worker=self._number, why=str(error))
                down = Down(str(error), starting=True)
            else:
                return moved


async def all_of(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    """What each of them gives; where one fails, none goes on."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


class Crew:
    """A pool of members, wherever they sit."""

    def __init__(self, members: list[Member]) -> None:
        self._members = members
        self._loads = 0

    @property
    def workers(self) -> int:
        return len(self._members)

    async def start(self, listener: Listener) -> jobs.AnyReady:
        ready: list[jobs.AnyReady] = await all_of(*(member.start(listener) for member in self._members))
        return ready[0]

    def submit(self, worker: int, batch: jobs.Batch, pcm: Samples) -> None:
        self._members[worker].submit(batch, pcm)

    async def load(self, delta: bytes) -> jobs.VoiceCard:
        """First everybody makes it ready, then all switch: none does where one cannot."""
        self._loads += 1
        load = jobs.Load(self._loads, delta)
        card: jobs.VoiceCard | None = None
        while lacking := [member for member in self._members if member.lacks(load)]:
            for loaded in await asyncio.gather(*(member.prepare(load) for member in lacking)):
                if loaded is not None and loaded.card is None:
                    raise {2: GivenError, 3: MissingError}.get(loaded.exit_code, FailedError)(loaded.why)
                card = card if loaded is None else loaded.card
        if card is None:
            raise FailedError("no worker is up to take it; try again in a moment")
        for member in self._members:
            member.switch(load)
        return card

    async def stop(self) -> None:
        await asyncio.gather(*(member.stop() for member in self._members))
