"""Workers as actors of Ray, on as many machines as its cluster has. The only file that knows Ray, and loads it when it is asked for.

Each machine needs the same version of this package. Where an actor runs, and whether machines are added for it, is Ray's
business: we ask for one GPU or one CPU for each, and for a new one where one is lost.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
import numpy as np

from clser.engine import jobs
from clser.engine.clock import Clock
from clser.engine.errors import FailedError, MissingError
from clser.engine.logs import log
from clser.engine.pool import Listener, PoolConfig
from clser.engine.records import Samples
from clser.engine.restarts import WATCH_S, Crew, Down, Heard, Member, Restarts, Silence, came_up
from clser.engine.worker import AnyConfig, broken, open_computing

STORE_BYTES = 128 << 20  # batches are small; left alone, Ray takes a third of the memory
KNOCK_S = 5.0
HERE = socket.gethostname()


class Actor:
    """What runs in Ray's process. It speaks as a worker does (jobs.py), and raises nothing: its last words are `Broken`."""

    def open(self, config_json: str) -> tuple[bytes, str, int]:
        """Load and warm up. Its first words, and whose process it is."""
        try:
            self._networks = open_computing(msgspec.json.decode(config_json, type=AnyConfig))
            said: jobs.AnyReady | jobs.Broken = self._networks.ready
        except Exception as error:  # noqa: BLE001 - whatever it is, the engine decides
            said = broken(error)
        return jobs.encode(said), socket.gethostname(), os.getpid()

    def compute(self, head: bytes, pcm: bytes) -> tuple[bytes, bytes]:
        try:
            batch = jobs.decode_from_engine(head)
            assert isinstance(batch, jobs.Batch)
            answer, numbers = self._networks.compute(batch, np.frombuffer(pcm, np.int16))
        except Exception as error:  # noqa: BLE001 - whatever it is, the engine decides
            return jobs.encode(broken(error)), b""
        return jobs.encode(answer), numbers.tobytes()

    def beat(self) -> tuple[bytes, bytes]:
        """Calls are taken one after the other: an answer to this one says that the work loop goes on."""
        return jobs.encode(jobs.Beat()), b""


class RayPool(Crew):
    def __init__(self, config: PoolConfig, worker: AnyConfig, devices: tuple[str, ...], clock: Clock) -> None:
        self._ray = import_ray()
        self._config = config
        self._ours: bool | None = None
        self._joining = Lock()
        # which GPU it is, is for Ray to say: an actor sees one, and calls it the first
        wanted = ["cpu" if devices[number % len(devices)] == "cpu" else "cuda:0" for number in range(config.workers)]
        self._gpus = wanted.count("cuda:0")
        self._seats = [RaySeat(number, config, worker, self._ray, self._join) for number in range(config.workers)]
        super().__init__(
            [
                Member(number, seat, Restarts(config, number, device), clock)
                for number, (seat, device) in enumerate(zip(self._seats, wanted, strict=True))
            ]
        )

    @property
    def pids(self) -> list[int]:
        return [seat.pid for seat in self._seats if seat.pid is not None]

    async def start(self, listener: Listener) -> jobs.AnyReady:
        # in a thread: it takes seconds; and there Ray leaves this process's signals alone
        await asyncio.to_thread(self._join)
        if self._ours and not self._config.address:  # nothing will be added to this machine
            here = int(self._ray.cluster_resources().get("GPU", 0))
            if here < self._gpus:
                raise MissingError(
                    f"compute {self._config.compute!r}: Ray finds {here} GPUs on this machine for {self._gpus} workers; "
                    "give pool.address, or pool.compute=cpu"
                )
        return await super().start(listener)

    async def stop(self) -> None:
        await super().stop()
        if self._ours:
            await asyncio.to_thread(self._ray.shutdown)

    def _join(self) -> None:
        """Be in the cluster: the one this program has joined already, else the one of the config. On any thread."""
        with self._joining:
            if not self._ray.is_initialized():
                if self._ours is False:
                    raise FailedError("the Ray that this program had joined is gone")
                self._ours = True
                connect(self._ray, self._config)
            elif self._ours is None:
                self._ours = False


class RaySeat:
    """A seat (see restarts.py): an actor, new in each life, wherever Ray has room for it."""

    def __init__(self, number: int, config: PoolConfig, worker: AnyConfig, ray: Any, join: Callable[[], None]) -> None:
        self._join = join
        self._number = number
        self._config = config
        self._worker = worker
        self._ray = ray
        self._lives = 0
        self._actor: Any = None
        self._hung = self._beating = False
        self.pid: int | None = None
        """Where the actor is on this machine."""

    async def launch(self, device: str, heard: Heard) -> jobs.AnyReady:
        loop = asyncio.get_running_loop()
        self._lives += 1
        self._heard = heard
        self._silence = Silence()
        self._first: asyncio.Future[jobs.AnyReady | jobs.Broken] = loop.create_future()
        self._down: asyncio.Future[Down] = loop.create_future()
        config = msgspec.structs.replace(self._worker, compute=device)
        self._actor = await asyncio.to_thread(self._create, device)
        self._ask(partial(self._actor.open.remote, msgspec.json.encode(config).decode()), self._take_first)
        await asyncio.wait((self._first, self._down), timeout=self._config.start_s, return_when=asyncio.FIRST_COMPLETED)
        if self._first.done():
            return came_up(self._first.result())
        if self._down.done():
            raise FailedError(f"worker {self._number} did not come up: {self._down.result().why}")
        asked = "a CPU" if device == "cpu" else "a GPU"
        kind = MissingError if self._lives == 1 else FailedError  # later, a machine may yet come back
        raise kind(
            f"worker {self._number}: Ray had no room for it, or did not get it ready, in {self._config.start_s:.0f} s; "
            f"it needs {asked} (`ray status` shows what there is)"
        )

    def _create(self, device: str) -> Any:
        """Ask for an actor. Ray calls it made long before there is room for it."""
        needs = {"num_cpus": 1} if device == "cpu" else {"num_cpus": 0, "num_gpus": 1}
        try:
            self._join()  # again, if it was lost: left to itself, Ray would start one of its own here
            return self._ray.remote(**needs, max_restarts=0)(Actor).remote()
        except (MissingError, self._ray.exceptions.RayError, ConnectionError) as error:
            raise FailedError(f"worker {self._number}: Ray does not answer: {_first_line(error)}") from error

    def submit(self, batch: jobs.Batch, pcm: Samples) -> None:
        self._ask(partial(self._actor.compute.remote, jobs.encode(batch), pcm.tobytes()), self._take)

    async def load(self, load: jobs.Load) -> jobs.Loaded | None:
        """An actor takes one call after the other, so batches would wait for what is made ready: it is refused."""
        why = "workers on Ray take no delta; make a whole file with `clser-models export --delta`, and start with that"
        return jobs.Loaded(load.number, None, why)

    def switch(self, number: int) -> None:
        raise AssertionError(f"load {number} was refused")

    def disown(self, why: str) -> None:
        self._goes_down(Down(why))

    async def ended(self) -> Down:
        while True:
            if not self._beating:
                self._beating = True
                self._ask(self._actor.beat.remote, self._take)
            await asyncio.wait((self._down,), timeout=WATCH_S)
            if self._down.done():
                return self._down.result()
            silent_s = self._silence.look()
            if silent_s > self._config.silent_s:
                self._hung = True
                return Down(f"it said nothing for {silent_s:.0f} s")

    async def end(self, patience_s: float = 0.0) -> None:
        del patience_s  # an actor has nothing to bring to an end
        actor, self._actor = self._actor, None
        if actor is not None:
            with suppress(self._ray.exceptions.RayError, ConnectionError, ValueError):  # it is gone, or all of Ray is
                await asyncio.to_thread(self._ray.kill, actor, no_restart=True)
        if (
            self._hung and self.pid is not None
        ):  # Ray asks the process itself to end, which one that is stopped never does
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)
        self._hung, self._beating, self.pid = False, False, None

    def _ask(self, call: Callable[[], Any], take: Callable[[Any], None]) -> None:
        """Call the actor; on the loop, `take` what it returns, if this life is not over by then."""
        life, loop = self._lives, asyncio.get_running_loop()

        def arrived(answer: "Future[Any]") -> None:
            if life != self._lives or self._actor is None:
                return
            try:
                said = answer.result()
            except (self._ray.exceptions.RayError, ConnectionError, CancelledError) as error:
                self._goes_down(Down(f"Ray lost it: {_first_line(error)}"))
            else:
                self._silence.heard()
                take(said)

        def pass_on(answer: "Future[Any]") -> None:  # on a thread of Ray's
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(arrived, answer)

        try:
            # not awaited: an await that is cancelled breaks Ray's client
            call().future().add_done_callback(pass_on)
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            self._goes_down(Down(f"Ray cannot reach it: {_first_line(error)}"))

    def _take_first(self, said: tuple[bytes, str, int]) -> None:
        words, host, pid = said
        self.pid = pid if host == HERE else None
        message = jobs.decode_from_worker(words)
        assert isinstance(message, jobs.AnyReady | jobs.Broken)
        if not self._first.done():
            self._first.set_result(message)

    def _take(self, said: tuple[bytes, bytes]) -> None:
        message = jobs.decode_from_worker(said[0])
        if isinstance(message, jobs.Answer):
            self._heard(message, np.frombuffer(said[1], np.float32))
        elif isinstance(message, jobs.Broken):
            self._goes_down(Down(message.message, message.device))
        else:
            self._beating = False

    def _goes_down(self, down: Down) -> None:
        if not self._down.done():
            self._down.set_result(down)


def import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported, and by what it starts
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        raise MissingError(
            "pool.on 'ray': Ray is not installed; `pip install 'clser-stream[ray]'`, or set pool.on=local"
        ) from error


def connect(ray: Any, config: PoolConfig) -> None:
    """Join the cluster at `config.address`; where that is empty, start one on this machine."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    own = {
        "num_cpus": max(os.cpu_count() or 1, config.workers),
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
    }
    _keep_off_stdout()
    try:
        _knock(config.address)
        ray.init(**quiet, address=config.address or "local", **({} if config.address else own))
    except (OSError, RuntimeError, ValueError) as error:  # of OSError, whatever a connection raises
        raise MissingError(
            f"pool.address {config.address!r}: Ray cannot be reached there ({_first_line(error)}); "
            "give `auto`, HOST:PORT or ray://HOST:PORT of a running cluster, or nothing to start one here"
        ) from error


def _knock(address: str) -> None:
    """OSError where nobody is at HOST:PORT, after seconds: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


def _keep_off_stdout() -> None:
    """Ray prints what its machines report on standard output, however it is asked not to. That is where our results go."""
    inside: Any = import_module("ray._private.worker")
    if hasattr(inside, "print_to_stdstream"):
        inside.print_to_stdstream = lambda data, *_, **__: log.info("ray_says", lines=data.get("lines"))


def _first_line(error: BaseException) -> str:
    """Ray's errors are pages; what happened stands first, or last where the first line only announces it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") else lines[0]


def open_pool(config: PoolConfig, worker: AnyConfig, devices: tuple[str, ...], runtime: Path, clock: Clock) -> RayPool:
    del runtime  # Ray has sockets of its own
    return RayPool(config, worker, devices, clock)
