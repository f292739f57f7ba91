"""A subscriber in a process of its own that does nothing but stamp what arrives; decoding is left for afterwards.

Started as `python -m clser.bench.reader ENDPOINT FILE SECONDS`; SIGTERM ends it. The file holds one MessagePack pair
(unix ns of arrival, body) after the other, each behind its length in four bytes.
"""

import gc
import os
import signal
import struct
import sys
import time
from pathlib import Path
from types import FrameType

import msgspec
import zmq

from clser.engine import wire
from clser.engine.records import Message

KINDS = ("result", "speech", "gap", "status")
FLUSH_S = 0.5


class Received(msgspec.Struct, frozen=True):
    at_us: float
    """Unix time of arrival."""
    message: Message


def read_received(path: Path) -> list[Received]:
    """All of a reader's file, in order of arrival."""
    data = path.read_bytes()
    decode = msgspec.msgpack.Decoder(tuple[int, bytes]).decode
    received = []
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        at_ns, body = decode(data[at + 4 : at + 4 + length])
        received.append(Received(at_ns / 1000, wire.decode(body)))
        at += 4 + length
    return received


def listen(socket: "zmq.Socket[bytes]", path: Path, until_s: float) -> None:
    stopped = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us decides when we stop
    parent = os.getppid()
    waiting: list[tuple[int, bytes]] = []
    flushed_s = time.monotonic()
    with path.open("wb") as file:
        while True:
            if socket.poll(100):
                try:
                    while True:
                        body = socket.recv_multipart(zmq.NOBLOCK)[1]
                        waiting.append((time.time_ns(), body))
                except zmq.Again:
                    ended = False
            else:
                ended = stopped  # only once nothing is left to read
            now_s = time.monotonic()
            ended = ended or now_s > until_s or os.getppid() != parent
            if ended or now_s - flushed_s > FLUSH_S:
                for pair in waiting:
                    packed = msgspec.msgpack.encode(pair)
                    file.write(struct.pack("<I", len(packed)) + packed)
                waiting.clear()
                flushed_s = now_s
            if ended:
                return


def main() -> int:
    endpoint, path, seconds = sys.argv[1:]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    socket = context.socket(zmq.SUB)
    socket.rcvhwm = 0
    for kind in KINDS:
        socket.subscribe(wire.topic(kind))
    socket.connect(endpoint)
    gc.disable()
    try:
        listen(socket, Path(path), time.monotonic() + float(seconds))
    finally:
        context.destroy(linger=0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
