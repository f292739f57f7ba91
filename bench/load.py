"""The load generator, a process of its own: streams of packets over the ingest socket, paced like microphones.

Each packet is due when its last sample would exist, whatever became of those before it; how late it really went out is
written down. Started as `python -m clser.bench.load ORDER` with an `Order` in JSON.
"""

import gc
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq
from msgspec import Struct
from numpy.typing import NDArray

from clser.bench.scene import PACKET
from clser.engine.errors import ClserError, FailedError
from clser.engine.records import SAMPLE_RATE_HZ

PACKET_NS = PACKET * 1_000_000_000 // SAMPLE_RATE_HZ
LEAST_SLEEP_NS = 500_000
"""Packets due sooner than this after another go with it: waking for each would cost more than the sending."""
OPEN_S, CLOSE_S = 10.0, 20.0
QUEUE = 500
LOOK = 50
FIELD = (1 << 63) + 0x1122334455
"""Stands in a header's template where a number will be."""


class Order(Struct, frozen=True):
    endpoint: str
    scene: str
    """An .npy file of s16 samples, a whole number of packets."""
    streams: int
    packets: int
    """Each stream sends so many, going round the scene."""
    ledger: str
    """The .npz file to write."""
    phase_packets: tuple[int, ...]
    """Where in the scene each stream begins."""


class Ledger(Struct, frozen=True):
    start_us: NDArray[np.float64]
    """Per stream: unix time at which its sample 0 begins."""
    sent_us: NDArray[np.int64]
    """[streams, packets]: unix time at which each packet was handed to the socket."""
    blocked: int
    """Packets that the full socket did not take."""
    cpu_s: float
    """Processor time of the generator while it sent."""
    wall_s: float
    closed: int
    """Streams whose end the engine has confirmed."""
    refused: int = 0
    """Refusals while it closed them, of packets or of the closing."""

    def captured_us(self, stream: int, sample: float) -> float:
        """When that sample existed."""
        return float(self.start_us[stream]) + sample * 1e6 / SAMPLE_RATE_HZ

    def late_ms(self) -> NDArray[np.float64]:
        """How long after its time each packet went out."""
        due = self.start_us[:, None] + (np.arange(self.sent_us.shape[1]) + 1) * (PACKET_NS / 1000)
        return np.asarray((self.sent_us - due)[self.sent_us > 0] / 1000)


def name_of(stream: int) -> str:
    return f"load-{stream}"


def read_ledger(path: Path) -> Ledger:
    with np.load(path) as file:
        return Ledger(
            file["start_us"],
            file["sent_us"],
            int(file["blocked"]),
            float(file["cpu_s"]),
            float(file["wall_s"]),
            int(file["closed"]),
            int(file["refused"]),
        )


class Microphone:
    """One stream: its socket and the header that is filled in for each packet."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, name: str) -> None:
        self.name = name
        self.refused = 0
        self.socket = context.socket(zmq.DEALER)
        self.socket.sndhwm = QUEUE
        self.socket.connect(endpoint)
        fields = {"op": "audio", "stream": name, "start_sample": FIELD, "captured_unix_us": FIELD + 1}
        self.header = bytearray(msgspec.msgpack.encode(fields))
        self.start_at = self.header.index(struct.pack(">Q", FIELD))
        self.captured_at = self.header.index(struct.pack(">Q", FIELD + 1))

    def send(self, first_sample: int, captured_us: int, sound: bytes) -> bool:
        """A packet; whether the socket took it."""
        struct.pack_into(">Q", self.header, self.start_at, first_sample)
        struct.pack_into(">Q", self.header, self.captured_at, captured_us)
        try:
            self.socket.send(self.header, zmq.SNDMORE | zmq.NOBLOCK)
            self.socket.send(sound)
        except zmq.Again:
            return False
        return True

    def replies(self) -> Iterator[dict[str, str]]:
        """What the engine has answered so far."""
        try:
            while True:
                yield msgspec.json.decode(self.socket.recv(zmq.NOBLOCK), type=dict[str, str])
        except zmq.Again:
            return

    def say(self, op: str) -> None:
        self.socket.send(msgspec.json.encode({"op": op, "stream": self.name}))

    def wait_for(self, op: str, until_s: float) -> bool:
        """Whether the engine said so in time. Not to be let in is an error; what is refused later is counted."""
        while (left_s := until_s - time.monotonic()) > 0:
            if self.socket.poll(round(left_s * 1000)):
                reply = msgspec.json.decode(self.socket.recv())
                if reply["op"] == "refused":
                    if op == "opened":
                        raise FailedError(f"stream {self.name}: the engine refused: {reply.get('reason')}")
                    self.refused += 1
                if reply["op"] == op:
                    return True
        return False


def play(microphones: list[Microphone], sound: list[bytes], order: Order) -> Ledger:
    streams, packets = len(microphones), order.packets
    sent_us = np.zeros((streams, packets), np.int64)
    rows: list[memoryview[int]] = [memoryview(row.data) for row in sent_us]
    begin_ns = time.monotonic_ns() + 100_000_000
    unix_ns = time.time_ns() - time.monotonic_ns()
    shifts_ns = [stream * PACKET_NS // streams for stream in range(streams)]
    lines = [
        (mic, row, phase, shift)
        for mic, row, phase, shift in zip(microphones, rows, order.phase_packets, shifts_ns, strict=True)
    ]
    blocked, count, parent = 0, len(sound), os.getppid()
    cpu_s, wall_s = time.process_time(), time.monotonic()
    for packet in range(packets):
        if packet % LOOK == 0 and os.getppid() != parent:
            raise FailedError("whoever started the load generator has gone")
        round_ns = begin_ns + (packet + 1) * PACKET_NS
        first_sample = packet * PACKET
        for mic, row, phase, shift_ns in lines:
            due_ns = round_ns + shift_ns
            wait_ns = due_ns - time.monotonic_ns()
            if wait_ns > 0:
                time.sleep(max(wait_ns, LEAST_SLEEP_NS) / 1e9)
            now_us = time.time_ns() // 1000
            if mic.send(first_sample, (due_ns + unix_ns) // 1000, sound[(phase + packet) % count]):
                row[packet] = now_us
            else:
                blocked += 1
    start_us = (begin_ns + unix_ns + np.array(shifts_ns, np.float64)) / 1000
    return Ledger(start_us, sent_us, blocked, time.process_time() - cpu_s, time.monotonic() - wall_s, 0)


def run(order: Order) -> Ledger:
    scene = np.load(order.scene)
    sound = [part.tobytes() for part in scene.reshape(-1, PACKET)]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, 4096)
    try:
        microphones = [Microphone(context, order.endpoint, name_of(stream)) for stream in range(order.streams)]
        until_s = time.monotonic() + OPEN_S
        for mic in microphones:
            mic.say("open")
        for mic in microphones:
            if not mic.wait_for("opened", until_s):
                raise FailedError(f"stream {mic.name}: the engine did not open it within {OPEN_S:.0f} s")
        gc.collect()
        gc.disable()
        ledger = play(microphones, sound, order)
        until_s = time.monotonic() + CLOSE_S
        for mic in microphones:
            mic.say("close")
        closed = sum(mic.wait_for("closed", until_s) for mic in microphones)
        return msgspec.structs.replace(ledger, closed=closed, refused=sum(mic.refused for mic in microphones))
    finally:
        context.destroy(linger=0)


def obey(kind: type[Any], run: Callable[[Any], dict[str, Any]]) -> int:
    """A load generator's life: the order in the first argument, its arrays in the file that the order names."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us decides when we stop
    order = msgspec.json.decode(sys.argv[1], type=kind)
    try:
        arrays = run(order)
    except ClserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    np.savez(order.ledger, allow_pickle=False, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(obey(Order, lambda order: msgspec.structs.asdict(run(order))))
