"""A worker's loop: take a batch, compute it, answer. Started by the pool as `python -m clser.engine.worker ENDPOINT CONFIG PID`.

Networks are loaded and warmed up before `Ready` is said. The heartbeat comes from this very loop: a worker that is stuck
in a computation says nothing, which is how the pool finds out.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import ClassVar, Protocol

import msgspec
import numpy as np
import zmq

from clser.engine import jobs
from clser.engine.backends import Numbers, VadNetwork, VoiceModel, open_vad, open_voice
from clser.engine.backends.devices import is_device_error
from clser.engine.backends.join import Joiner, open_joiner
from clser.engine.errors import ClserError, FailedError, GivenError
from clser.engine.making import Made, Making
from clser.engine.records import Samples
from clser.engine.scribe import NICENESS, Scribe, WritingConfig
from clser.engine.vad import VadConfig

BEAT_MS = 500
LOOK_MS = 20  # how often it is looked whether what is being made is ready
WARM_ROWS = (1, 1, 4)
WARM_ROWS_CUDA = (1, 1, 2, 8, 32, 128)  # a GPU picks its kernels by the size of the batch, each time for the first time


class WorkerConfig(msgspec.Struct, frozen=True, tag=True):
    kind: ClassVar[str] = "worker"
    vad: VadConfig
    model: str
    compute: str = "cpu"
    """One device; the pool says which."""
    backend: str = "onnx"
    precision: str = "full"
    joins: bool = False
    """Words are written down elsewhere, and what they say is joined with the voice here."""
    threads: int = 1


AnyConfig = WorkerConfig | WritingConfig


class Computing(Protocol):
    """What answers batches, wherever a worker runs."""

    @property
    def ready(self) -> jobs.AnyReady: ...
    def compute(self, batch: jobs.Batch, pcm: Samples) -> tuple[jobs.Answer, Numbers]: ...
    def make(self, load: jobs.Load) -> Made:
        """Called in another thread than the rest: make ready what was asked for, and say how it is put into place."""


def open_computing(config: AnyConfig) -> Computing:
    return Networks(config) if isinstance(config, WorkerConfig) else Scribe(config)


class Networks:
    """Voice activity and emotion, loaded and warmed up."""

    def __init__(self, config: WorkerConfig) -> None:
        self._vad = vad = open_vad(config.vad)
        self._voice = voice = open_voice(config.model, config.compute, config.backend, config.precision)
        warm_up(vad, voice, WARM_ROWS if config.compute == "cpu" else WARM_ROWS_CUDA)
        self._networks: dict[jobs.Lane, VadNetwork | VoiceModel] = {"vad": vad, "voice": voice}
        self._joiner = open_joiner(voice) if config.joins else None
        if self._joiner is not None:
            warm_joiner(self._joiner, voice)
        joins = "not" if self._joiner is None else self._joiner.joins
        self.ready = jobs.Ready(vad.frame_samples, voice.card, vad.state_size, joins)

    def compute(self, batch: jobs.Batch, pcm: Samples) -> tuple[jobs.Answer, Numbers]:
        began = time.perf_counter()
        numbers = self._join(batch, pcm) if batch.lane == "both" else self._hear(batch, pcm)
        busy_us = int((time.perf_counter() - began) * 1e6)
        return jobs.Answer(batch.number, batch.lane, busy_us), np.ascontiguousarray(numbers, np.float32)

    def make(self, load: jobs.Load) -> Made:
        adapting = getattr(self._voice, "adapting", None)
        if adapting is None:
            raise GivenError(
                f"model {self._voice.card.name}: its backend takes no delta; export it whole, and start anew"
            )
        made: Made = adapting(load.delta)
        return made

    def _join(self, batch: jobs.Batch, pcm: Samples) -> Numbers:
        assert self._joiner is not None, "nothing joins voice and words here"
        told = np.frombuffer(batch.states, np.float32).reshape(len(batch.rows), -1)
        return self._joiner.run(batch.rows, pcm, told, batch.texts)

    def _hear(self, batch: jobs.Batch, pcm: Samples) -> Numbers:
        if given := [row.slot for row in batch.rows if row.given]:
            give = self._vad.restore if batch.lane == "vad" else self._voice.know
            give(given, np.frombuffer(batch.states, np.float32).reshape(len(given), -1))
        numbers = self._networks[batch.lane].run(batch.rows, pcm)
        frames = sum(row.frames for row in batch.rows)
        if len(numbers) != frames:
            raise FailedError(f"the {batch.lane} network answered for {len(numbers)} frames of {frames}: it is broken")
        if kept := [row.slot for row in batch.rows if row.keep]:
            keep = self._vad.states if batch.lane == "vad" else self._voice.told
            numbers = np.concatenate((numbers.ravel(), keep(kept).ravel()))
        return numbers


def warm_up(vad: VadNetwork, voice: VoiceModel, counts: Sequence[int] = WARM_ROWS) -> None:
    """The first calls of a network are its slowest; nobody waits for these."""
    for count in counts:
        for network, frame_samples, frames in ((vad, vad.frame_samples, 1), (voice, voice.card.frame_samples, 3)):
            rows = [jobs.Row(slot, frames, True, anew=True) for slot in range(count)]
            network.run(rows, np.zeros(frames * count * frame_samples, np.int16))


def warm_joiner(joiner: Joiner, voice: VoiceModel) -> None:
    frames = 3 if joiner.joins == "text" else 0
    told = np.ones((1, len(voice.card.heads) + joiner.tells), np.float32)
    pcm = np.zeros(frames * voice.card.frame_samples, np.int16)
    joiner.run([jobs.Row(0, frames, fresh=False)], pcm, told, ["well then"])


def broken(error: Exception) -> jobs.Broken:
    """A worker's last words over an error that it does not survive."""
    if isinstance(error, ClserError):
        return jobs.Broken(str(error), error.exit_code)
    device = is_device_error(error)
    what = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
    return jobs.Broken(f"{what}: {error}" if str(error) else what, exit_code=3 if device else 1, device=device)


def serve(socket: "zmq.Socket[bytes]", networks: Computing, engine_pid: int) -> None:
    """Until told to stop, or until the engine is gone. What is to be loaded is made in a thread beside this loop."""
    making: Making | None = None
    quiet_ms = 0
    while True:
        patience_ms = BEAT_MS if making is None or making.told else LOOK_MS
        if not socket.poll(patience_ms):
            if os.getppid() != engine_pid:
                return
            if making is not None and not making.told and (loaded := making.look()) is not None:
                socket.send(jobs.encode(loaded))
            quiet_ms += patience_ms
            if quiet_ms >= BEAT_MS:
                quiet_ms = 0
                socket.send(jobs.encode(jobs.Beat()))
            continue
        head, *body = socket.recv_multipart()
        asked = jobs.decode_from_engine(head)
        match asked:
            case jobs.Stop():
                return
            case jobs.Load():
                making = Making(asked, networks.make)
            case jobs.Switch():
                assert making is not None and making.number == asked.number, "nothing was made ready"
                making.put()
                making = None
            case jobs.Batch():
                answer, numbers = networks.compute(asked, np.frombuffer(body[0], np.int16))
                socket.send_multipart((jobs.encode(answer), numbers.data))
        if making is not None and not making.told and (loaded := making.look()) is not None:
            socket.send(jobs.encode(loaded))  # a worker that never rests says so all the same


def main() -> int:
    endpoint, config_json, engine_pid = sys.argv[1:]
    config = msgspec.json.decode(config_json, type=AnyConfig)
    if isinstance(config, WritingConfig):
        os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the engine decides when we stop
    context = zmq.Context(io_threads=1)
    socket = context.socket(zmq.PAIR)
    socket.linger = 1000
    socket.connect(endpoint)
    try:
        networks = open_computing(config)
        socket.send(jobs.encode(networks.ready))
        serve(socket, networks, int(engine_pid))
    except Exception as error:
        last = broken(error)
        socket.send(jobs.encode(last))
        if isinstance(error, ClserError):
            return last.exit_code
        raise
    finally:
        context.destroy(linger=1000)
    return 0


if __name__ == "__main__":
    sys.exit(main())
