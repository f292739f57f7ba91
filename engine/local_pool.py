"""Workers as processes of this machine, each behind a socket of its own."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import msgspec
import numpy as np
import zmq

from clser.engine import jobs
from clser.engine.clock import Clock
from clser.engine.errors import FailedError
from clser.engine.pool import PoolConfig
from clser.engine.records import Samples
from clser.engine.restarts import WATCH_S, Crew, Down, Heard, Member, Restarts, Silence, came_up
from clser.engine.sockets import Frames, Inbox, Socket
from clser.engine.worker import AnyConfig

STDERR = 2
LAST_WORDS_S = 0.2  # what a worker said before it ended may still be on its way


class LocalPool(Crew):
    def __init__(
        self, config: PoolConfig, worker: AnyConfig, devices: tuple[str, ...], runtime: Path, clock: Clock
    ) -> None:
        self._context = zmq.Context(io_threads=1)
        self._seats = [Process(number, config, worker, runtime, self._context) for number in range(config.workers)]
        super().__init__(
            [
                Member(number, seat, Restarts(config, number, devices[number % len(devices)], worker.kind), clock)
                for number, seat in enumerate(self._seats)
            ]
        )

    @property
    def pids(self) -> list[int]:
        return [seat.process.pid for seat in self._seats if seat.process is not None]

    async def stop(self) -> None:
        await super().stop()
        self._context.destroy(linger=0)


class Process:
    """A seat (see restarts.py): a process, and a socket between it and us. Both are new in each life."""

    def __init__(
        self, number: int, config: PoolConfig, worker: AnyConfig, runtime: Path, context: "zmq.Context[Socket]"
    ) -> None:
        self._number = number
        self._config = config
        self._worker = worker
        self._runtime = runtime
        self._context = context
        self._lives = 0
        self._inbox: Inbox | None = None
        self._socket: Socket | None = None
        self._dead: asyncio.Task[int] | None = None
        self._load = 0
        self._loading: asyncio.Future[jobs.Loaded | None] | None = None
        self.process: asyncio.subprocess.Process | None = None

    async def launch(self, device: str, heard: Heard) -> jobs.AnyReady:
        loop = asyncio.get_running_loop()
        self._lives += 1
        self._silence = Silence()
        self._heard = heard
        self._first: asyncio.Future[jobs.AnyReady | jobs.Broken] = loop.create_future()
        self._broken: asyncio.Future[jobs.Broken] = loop.create_future()
        self._runtime.mkdir(mode=0o700, parents=True, exist_ok=True)  # a cleaned-up /tmp must not keep a worker down
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.bind(f"ipc://{self._path}")
        self._inbox = Inbox(self._socket, self._take)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "clser.engine.worker",
            f"ipc://{self._path}",
            msgspec.json.encode(msgspec.structs.replace(self._worker, compute=device)).decode(),
            str(os.getpid()),
            env={**os.environ, "OMP_NUM_THREADS": str(self._worker.threads)},
            stdin=asyncio.subprocess.DEVNULL,
            process_group=0,  # Ctrl-C reaches the whole group of a terminal; the engine decides when its workers stop
            stdout=STDERR,  # whatever a runtime prints has no business among our results
        )
        self._dead = asyncio.create_task(self.process.wait())
        await asyncio.wait((self._first, self._dead), timeout=self._config.start_s, return_when=asyncio.FIRST_COMPLETED)
        if self._dead.done():
            await asyncio.wait((self._first,), timeout=LAST_WORDS_S)
        if self._first.done():
            return came_up(self._first.result())
        over = self._dead.done()
        word = _ending(self._dead.result()) if over else f"was not ready after {self._config.start_s:.0f} s"
        raise FailedError(f"{self._worker.kind} {self._number} {word}; its own words are on standard error")

    def submit(self, batch: jobs.Batch, pcm: Samples) -> None:
        self._send(jobs.encode(batch), pcm.data)

    async def load(self, load: jobs.Load) -> jobs.Loaded | None:
        self._load, self._loading = load.number, asyncio.get_running_loop().create_future()
        self._send(jobs.encode(load))
        return await self._loading

    def switch(self, number: int) -> None:
        self._send(jobs.encode(jobs.Switch(number)))

    def disown(self, why: str) -> None:
        if not self._broken.done():
            self._broken.set_result(jobs.Broken(why, FailedError.exit_code))

    async def ended(self) -> Down:
        assert self._dead is not None
        while True:
            await asyncio.wait((self._dead, self._broken), timeout=WATCH_S, return_when=asyncio.FIRST_COMPLETED)
            if self._dead.done():
                await asyncio.wait((self._broken,), timeout=LAST_WORDS_S if self._dead.result() > 0 else 0)
            if self._broken.done():
                await asyncio.wait((self._dead,), timeout=LAST_WORDS_S)  # it still writes to standard error
                return Down(self._broken.result().message, self._broken.result().device)
            if self._dead.done():
                return Down(f"it {_ending(self._dead.result())}")
            silent_s = self._silence.look()
            if silent_s > self._config.silent_s:
                return Down(f"it said nothing for {silent_s:.0f} s")

    async def end(self, patience_s: float = 0.0) -> None:
        self._was_loaded(None)
        if self.process is not None:
            if patience_s and self._socket is not None:
                self._send(jobs.encode(jobs.Stop()))
            try:
                await asyncio.wait_for(self.process.wait(), patience_s)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):  # it has ended already: no patience is no look either
                    self.process.kill()
                await self.process.wait()
            self.process = None
        if self._dead is not None:
            await asyncio.gather(self._dead)
            self._dead = None
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = self._socket = None
        self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self._runtime / f"{self._worker.kind}-{os.getpid()}-{self._number}-{self._lives}"

    def _send(self, *frames: bytes | memoryview) -> None:
        assert self._socket is not None and self._inbox is not None
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            self.disown("it takes no more work")
        self._inbox.look()

    def _take(self, frames: Frames) -> None:
        self._silence.heard()
        try:
            message = jobs.decode_from_worker(frames[0])
            numbers = np.frombuffer(frames[1] if isinstance(message, jobs.Answer) else b"", np.float32)
        except (msgspec.MsgspecError, IndexError, ValueError, RecursionError) as error:
            message = jobs.Broken(f"it spoke nonsense: {error}", FailedError.exit_code)
        if isinstance(message, jobs.Answer):
            self._heard(message, numbers)
        elif isinstance(message, jobs.Loaded):
            self._was_loaded(message)
        elif isinstance(message, jobs.AnyReady | jobs.Broken) and not self._first.done():
            self._first.set_result(message)
        elif isinstance(message, jobs.Broken) and not self._broken.done():
            self._broken.set_result(message)

    def _was_loaded(self, loaded: jobs.Loaded | None) -> None:
        meant = loaded is None or loaded.number == self._load  # not one that was given up
        if meant and self._loading is not None and not self._loading.done():
            self._loading.set_result(loaded)


def _ending(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def open_pool(
    config: PoolConfig, worker: AnyConfig, devices: tuple[str, ...], runtime: Path, clock: Clock
) -> LocalPool:
    return LocalPool(config, worker, devices, runtime, clock)
