"""Worker processes: started, spoken to, watched, and restarted a limited number of times.

The pipeline sees a `Pool` and knows neither processes nor sockets; another implementation may keep its workers elsewhere.
"""

import asyncio
import contextlib
import os
import sys
from collections import deque
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
import zmq
from msgspec import Meta, Struct
from numpy.typing import NDArray

from clser.engine import jobs
from clser.engine.clock import Clock
from clser.engine.errors import ClserError, FailedError, GivenError, MissingError
from clser.engine.logs import log
from clser.engine.records import Samples
from clser.engine.sockets import Frames, Inbox, Socket
from clser.engine.worker import WorkerConfig

WATCH_S = 0.5
STDERR = 2


class PoolConfig(Struct, frozen=True, forbid_unknown_fields=True):
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    compute: str = "cpu"
    """`cpu` or `cuda:N`."""
    start_s: Annotated[float, Meta(gt=0)] = 60.0
    """A worker that is not ready by then is given up."""
    silent_s: Annotated[float, Meta(gt=0)] = 10.0
    """A worker that says nothing for so long is killed."""
    restarts: Annotated[int, Meta(ge=0)] = 5
    restart_window_s: Annotated[float, Meta(gt=0)] = 60.0
    """More than `restarts` in so long, and the engine ends."""


class Listener(Protocol):
    """What a pool tells its owner. `worker` counts from 0."""

    def answered(self, worker: int, answer: jobs.Answer, numbers: NDArray[np.float32]) -> None: ...
    def lost(self, worker: int, why: str) -> None:
        """Its batches will not be answered and its slots are gone."""

    def back(self, worker: int) -> None: ...
    def failed(self, error: ClserError) -> None:
        """It will not come back."""


class Pool(Protocol):
    async def start(self, listener: Listener) -> jobs.Ready:
        """Return when every worker has warmed up."""

    @property
    def workers(self) -> int: ...
    @property
    def pids(self) -> list[int]: ...
    def submit(self, worker: int, batch: jobs.Batch, pcm: Samples) -> None:
        """Hand a batch to a worker that is up. At most one a lane may be under way."""

    async def stop(self) -> None: ...


class LocalPool:
    """Workers on this machine, each behind a socket of its own in `runtime`."""

    def __init__(self, config: PoolConfig, worker: WorkerConfig, runtime: Path, clock: Clock) -> None:
        self._context = zmq.Context(io_threads=1)
        self._members = [
            _Member(number, config, worker, runtime, clock, self._context) for number in range(config.workers)
        ]

    @property
    def workers(self) -> int:
        return len(self._members)

    @property
    def pids(self) -> list[int]:
        return [member.process.pid for member in self._members if member.process is not None]

    async def start(self, listener: Listener) -> jobs.Ready:
        return (await asyncio.gather(*(member.start(listener) for member in self._members)))[0]

    def submit(self, worker: int, batch: jobs.Batch, pcm: Samples) -> None:
        self._members[worker].send(jobs.encode(batch), pcm.data)

    async def stop(self) -> None:
        await asyncio.gather(*(member.stop() for member in self._members))
        self._context.destroy(linger=0)


class _Member:
    def __init__(  # noqa: PLR0917 - made in one place, in this order
        self,
        number: int,
        config: PoolConfig,
        worker: WorkerConfig,
        runtime: Path,
        clock: Clock,
        context: "zmq.Context[Socket]",
    ) -> None:
        self._number = number
        self._config = config
        self._worker_json = msgspec.json.encode(worker).decode()
        self._runtime = runtime
        self._clock = clock
        self._context = context
        self._starts = 0
        self._restarted: deque[float] = deque()
        self._last_heard = 0.0
        self._inbox: Inbox | None = None
        self._socket: Socket | None = None
        self._watching: asyncio.Task[None] | None = None
        self._up = False
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, listener: Listener) -> jobs.Ready:
        self._listener = listener
        try:
            ready = await self._launch()
        except BaseException:
            await self._end()
            raise
        self._watching = asyncio.create_task(self._watch(), name=f"watch worker {self._number}")
        return ready

    def send(self, *frames: bytes | memoryview) -> None:
        assert self._up and self._socket is not None and self._inbox is not None, "a batch for a worker that is down"
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            log.warning("worker_unreachable", worker=self._number)  # its death is noticed by the watch
        self._inbox.look()

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._up:
            self.send(jobs.encode(jobs.Stop()))
        await self._end(patience_s=2.0)

    async def _launch(self) -> jobs.Ready:
        """Start a process on a fresh socket and wait until it is ready."""
        self._starts += 1
        self._runtime.mkdir(mode=0o700, parents=True, exist_ok=True)  # a cleaned-up /tmp must not keep a worker down
        path = self._runtime / f"worker-{os.getpid()}-{self._number}-{self._starts}"
        self._socket = socket = self._context.socket(zmq.PAIR)
        socket.bind(f"ipc://{path}")
        first: asyncio.Future[jobs.Ready] = asyncio.get_running_loop().create_future()
        self._inbox = Inbox(socket, lambda frames: self._heard(frames, first))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "clser.engine.worker",
            f"ipc://{path}",
            self._worker_json,
            str(os.getpid()),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=STDERR,  # whatever a runtime prints has no business among our results
        )
        dead = asyncio.create_task(self.process.wait())
        waited: set[asyncio.Future[Any]] = {first, dead}
        try:
            await asyncio.wait(waited, timeout=self._config.start_s, return_when=asyncio.FIRST_COMPLETED)
            if dead.done() and not first.done():
                await asyncio.sleep(0)  # its last words may still lie in the socket
        finally:
            dead.cancel()
        if not first.done():
            word = (
                f"ended with code {self.process.returncode}"
                if dead.done()
                else f"was not ready after {self._config.start_s:.0f} s"
            )
            raise FailedError(f"worker {self._number} {word}; its own words are on standard error")
        self._last_heard = self._clock.monotonic_s()
        ready = first.result()
        self._up = True
        return ready

    def _heard(self, frames: Frames, first: asyncio.Future[jobs.Ready]) -> None:
        self._last_heard = self._clock.monotonic_s()
        message = jobs.decode_from_worker(frames[0])
        if isinstance(message, jobs.Answer):
            self._listener.answered(self._number, message, np.frombuffer(frames[1], np.float32))
        elif isinstance(message, jobs.Broken):
            if first.done():
                log.error("worker_broken", worker=self._number, why=message.message)
            else:
                kind = {2: GivenError, 3: MissingError}.get(message.exit_code, FailedError)
                first.set_exception(kind(message.message))
        elif isinstance(message, jobs.Ready) and not first.done():
            first.set_result(message)

    async def _watch(self) -> None:
        """Restart the worker whenever it dies or falls silent, until it does so too often."""
        while True:
            why = await self._wait_for_end()
            self._up = False
            self._listener.lost(self._number, why)
            final = await self._restart(why)
            if final is not None:
                self._listener.failed(final)
                return
            self._listener.back(self._number)

    async def _restart(self, why: str) -> ClserError | None:
        """Try until it is up again; else what makes trying pointless."""
        while True:
            await self._end()
            try:
                self._allow_restart(why)
            except FailedError as error:
                return error
            try:
                await self._launch()
            except (GivenError, MissingError) as error:
                return error
            except (FailedError, OSError, zmq.ZMQError) as error:
                log.warning("worker_not_started", worker=self._number, why=str(error))
                why = str(error)
            else:
                return None

    async def _wait_for_end(self) -> str:
        assert self.process is not None
        while True:
            try:
                code = await asyncio.wait_for(self.process.wait(), WATCH_S)
            except TimeoutError:
                silent_s = self._clock.monotonic_s() - self._last_heard
                if silent_s > self._config.silent_s:
                    return f"it said nothing for {silent_s:.0f} s"
            else:
                return f"it was killed by signal {-code}" if code < 0 else f"it ended with code {code}"

    def _allow_restart(self, why: str) -> None:
        now = self._clock.monotonic_s()
        self._restarted.append(now)
        while self._restarted and now - self._restarted[0] > self._config.restart_window_s:
            self._restarted.popleft()
        if len(self._restarted) > self._config.restarts:
            raise FailedError(
                f"worker {self._number} went down {len(self._restarted)} times in {self._config.restart_window_s:.0f} s, "
                f"the last time because {why}: see standard error, then start the engine again"
            )

    async def _end(self, patience_s: float = 0.0) -> None:
        """Leave neither process nor socket behind."""
        self._up = False
        if self.process is not None:
            try:
                await asyncio.wait_for(self.process.wait(), patience_s)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):  # it has ended already: no patience is no look either
                    self.process.kill()
                await self.process.wait()
            self.process = None
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None
        (self._runtime / f"worker-{os.getpid()}-{self._number}-{self._starts}").unlink(missing_ok=True)
