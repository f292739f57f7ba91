"""Engine, load generator and reader in processes of their own, started, watched and ended here.

All clocks are those of one machine. Every wait is bounded.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
import psutil
import zmq
from msgspec import Struct

from clser.bench import crowd
from clser.bench.account import Account, settle
from clser.bench.card import Setup
from clser.bench.crowd import Crowd, Crush, read_crowd
from clser.bench.load import PACKET_NS, Ledger, Order, read_ledger
from clser.bench.reader import Received, read_notes, read_received
from clser.bench.scene import Scene, phases
from clser.engine import wire
from clser.engine.errors import FailedError
from clser.engine.records import ENGINE, Status

READY_S = 90.0
STOP_S = 20.0
DESCRIPTORS = 8192
LOOK_S = 0.25
WORKER = "clser.engine.worker"
SLACK_S = 60.0
"""Beyond the length of its sound, a load generator that has not ended by then is given up."""


class Cpu(Struct, frozen=True):
    """Processor seconds while the load ran."""

    engine: float
    workers: float
    reader: float
    load: float
    wall_s: float

    def shares(self) -> dict[str, float]:
        """As shares of one core."""
        each = {"engine": self.engine, "workers": self.workers, "reader": self.reader, "load": self.load}
        return {name: round(spent / self.wall_s, 3) for name, spent in each.items()}


class Play(Struct, frozen=True):
    ledger: Ledger
    cpu: Cpu
    idle_rss_mb: float
    """Memory of engine and workers before the first stream."""


class Press(Struct, frozen=True):
    crowd: Crowd
    cpu: Cpu


class Rig:
    """`with Rig(...) as rig: rig.play(...)`, and afterwards `rig.received`, or `rig.account` where it is to be brief."""

    def __init__(self, setup: Setup, longest_s: float, brief: bool = False) -> None:
        self._setup = setup
        self._longest_s = longest_s
        self._brief = brief
        self._processes: list[subprocess.Popen[bytes]] = []
        self.received: list[Received] = []
        """Filled when the rig has stopped."""
        self.account = Account({}, [])
        """Likewise."""
        self.ready_s = 0.0
        """From the start of the engine's process until it says that it is ready."""

    def __enter__(self) -> Self:
        self._temporary = TemporaryDirectory(prefix="clser-bench-")
        self._folder = Path(self._temporary.name)
        self._ingest = f"ipc://{self._folder}/in"
        self._bus = f"ipc://{self._folder}/out"
        self._log = (self._folder / "engine.log").open("wb")
        _allow_many_sockets()
        try:
            self._start()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._stop(self._engine)  # its last status holds the counters
                self._stop(self._reader)
                if self._brief:
                    self.account = settle(read_notes(self._folder / "received"))
                else:
                    self.received = read_received(self._folder / "received")
                self._pass_on()
        finally:
            self._kill()

    def play(
        self, scene: Scene, streams: int = 1, packets: int | None = None, meanwhile: Callable[[], None] | None = None
    ) -> Play:
        """Send the scene once (or so many packets of it, going round), the streams beginning at different places.

        `meanwhile` is called a few times a second.
        """
        np.save(self._folder / "scene.npy", scene.sound)
        order = Order(
            self._ingest,
            str(self._folder / "scene.npy"),
            streams,
            packets or scene.packets,
            str(self._folder / "ledger.npz"),
            phases(scene.packets, streams),
        )
        idle_mb = self._rss_mb()
        spent = self._run("clser.bench.load", order, order.packets * PACKET_NS / 1e9, meanwhile)
        ledger = read_ledger(self._folder / "ledger.npz")
        return Play(ledger, Cpu(*spent, ledger.cpu_s, ledger.wall_s), idle_mb)

    def press(self, scene: Scene, begin: tuple[int, ...], crush: Crush) -> Press:
        """More streams than can be carried, each beginning at its packet of the scene."""
        np.save(self._folder / "scene.npy", scene.sound)
        out = self._folder / "crowd.npz"
        order = crowd.Order(self._ingest, str(self._folder / "scene.npy"), begin, crush, str(out))
        spent = self._run("clser.bench.crowd", order, crush.seconds + crush.after_s)
        found = read_crowd(out)
        return Press(found, Cpu(*spent, found.ledger.cpu_s, found.ledger.wall_s))

    def _run(
        self, module: str, order: Struct, seconds: float, meanwhile: Callable[[], None] | None = None
    ) -> tuple[float, float, float]:
        """A load generator, to its end; processor seconds of the engine itself, of its workers, and of the reader."""
        load = self._spawn(module, msgspec.json.encode(order).decode())
        before = self._spent()
        self._wait(load, seconds + SLACK_S, meanwhile)
        engine, workers, reader = (after - earlier for after, earlier in zip(self._spent(), before, strict=True))
        return engine, workers, reader

    def kill_worker(self, which: int) -> float | None:
        """End one of the engine's workers as the kernel would; unix us of it, or None where none is running."""
        pids = sorted(child.pid for child in self._children() if WORKER in _command(child))
        if not pids:
            return None
        at_us = time.time_ns() / 1000
        os.kill(pids[which % len(pids)], signal.SIGKILL)
        return at_us

    def _start(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        socket = context.socket(zmq.SUB)
        socket.subscribe(wire.topic("status", ENGINE))
        socket.connect(self._bus)
        received = str(self._folder / "received")
        longest = str(self._longest_s + READY_S + SLACK_S)
        how = ["brief"] if self._brief else []
        self._reader = self._spawn("clser.bench.reader", self._bus, received, longest, *how)
        overrides = [*self._setup.overrides, f"bus.publish={self._bus}"]
        began_us = time.time_ns() / 1000
        self._engine = self._spawn("clser.bench.serve", self._ingest, self._setup.source, *overrides)
        try:
            self.ready_s = (self._wait_until_ready(socket) - began_us) / 1e6
        finally:
            socket.close(linger=0)
            context.term()

    def _wait_until_ready(self, socket: "zmq.Socket[bytes]") -> float:
        until_s = time.monotonic() + READY_S
        while time.monotonic() < until_s:
            if self._engine.poll() is not None:
                raise FailedError(f"the engine ended before it was ready: {self._words()}")
            if socket.poll(200):
                status = wire.decode(socket.recv_multipart()[1])
                if isinstance(status, Status) and status.state == "ready":
                    return float(status.unix_us)
        raise FailedError(f"the engine was not ready after {READY_S:.0f} s: {self._words()}")

    def _spawn(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        errors = self._log if module == "clser.bench.serve" else None
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=errors
        )
        self._processes.append(process)
        return process

    def _wait(self, load: subprocess.Popen[bytes], seconds: float, meanwhile: Callable[[], None] | None = None) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            try:
                code = load.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                if self._engine.poll() is not None:
                    raise FailedError(f"the engine ended under load: {self._words()}") from None
                if meanwhile is not None:
                    meanwhile()
                continue
            if code:
                raise FailedError("the load generator failed; its own words are above")
            return
        raise FailedError(f"the load generator did not end within {seconds:.0f} s")

    def _spent(self) -> tuple[float, float, float]:
        """Processor seconds so far of the engine itself, of its workers, and of the reader."""
        engine = psutil.Process(self._engine.pid)
        ended = engine.cpu_times()  # what workers that were killed had spent is kept by who started them
        workers = sum(map(_seconds, self._children())) + float(ended.children_user + ended.children_system)
        return _seconds(engine), workers, _seconds(psutil.Process(self._reader.pid))

    def _children(self) -> list[psutil.Process]:
        return list(psutil.Process(self._engine.pid).children(recursive=True))

    def _rss_mb(self) -> float:
        engine = psutil.Process(self._engine.pid)
        return sum(float(each.memory_info().rss) for each in (engine, *engine.children(recursive=True))) / 2**20

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise FailedError(f"process {process.args!r} did not end within {STOP_S:.0f} s of SIGTERM") from None
        if code:
            raise FailedError(f"process {process.args!r} ended with code {code}: {self._words()}")

    def _pass_on(self) -> None:
        """What the engine logged is worth a line, not a screenful."""
        lines = (self._folder / "engine.log").read_text(errors="replace").splitlines()
        if lines:
            print(f"the engine logged {len(lines)} lines, the last: {lines[-1]}", file=sys.stderr)

    def _words(self) -> str:
        """The last thing the engine said on standard error."""
        lines = (self._folder / "engine.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

    def _kill(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self._log.close()
        self._temporary.cleanup()


def _allow_many_sockets() -> None:
    """Each stream takes a few descriptors of the processes started here, which inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
