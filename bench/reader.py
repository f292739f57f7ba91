"""A subscriber in a process of its own that does little but stamp what arrives; what it means is left for afterwards.

Started as `python -m clser.bench.reader ENDPOINT FILE SECONDS [brief]`; SIGTERM ends it. The file holds one MessagePack
value after the other, each behind its length in four bytes: the pair (unix ns of arrival, body), or with `brief` a `Note`.
"""

import gc
import os
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import msgspec
import zmq

from clser.bench.notes import Note, note
from clser.engine import wire
from clser.engine.records import Message

KINDS = ("result", "speech", "gap", "status")
AT_ONCE = 32
"""Messages written between two looks at the socket: what arrives meanwhile is stamped that much late."""


class Received(msgspec.Struct, frozen=True):
    at_us: float
    """Unix time of arrival."""
    message: Message


def read_received(path: Path) -> list[Received]:
    """All of a reader's file, in order of arrival."""
    decode = msgspec.msgpack.Decoder(tuple[int, bytes]).decode
    return [Received(at_ns / 1000, wire.decode(body)) for at_ns, body in map(decode, _values(path))]


def read_notes(path: Path) -> Iterator[Note]:
    """The same of a brief reader, one after the other: there may be millions."""
    return map(msgspec.msgpack.Decoder(Note).decode, _values(path))


def _values(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while len(head := file.read(4)) == 4:
            yield file.read(struct.unpack("<I", head)[0])


def whole(at_ns: int, body: bytes) -> bytes:
    return msgspec.msgpack.encode((at_ns, body))


def brief(at_ns: int, body: bytes) -> bytes:
    return msgspec.msgpack.encode(note(at_ns / 1000, wire.decode(body)))


def listen(socket: "zmq.Socket[bytes]", path: Path, until_s: float, pack: Callable[[int, bytes], bytes]) -> None:
    stopped = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us decides when we stop
    parent = os.getppid()
    waiting: deque[tuple[int, bytes]] = deque()
    ended = False
    with path.open("wb") as file:
        while not ended or waiting:
            if not ended and socket.poll(0 if waiting else 100):
                _take_all(socket, waiting)
            elif not waiting:
                ended = stopped  # only once nothing is left to read
            for _ in range(min(AT_ONCE, len(waiting))):
                packed = pack(*waiting.popleft())
                file.write(struct.pack("<I", len(packed)) + packed)
            ended = ended or time.monotonic() > until_s or os.getppid() != parent


def _take_all(socket: "zmq.Socket[bytes]", waiting: deque[tuple[int, bytes]]) -> None:
    try:
        while True:
            body = socket.recv_multipart(zmq.NOBLOCK)[1]
            waiting.append((time.time_ns(), body))
    except zmq.Again:
        return


def main() -> int:
    endpoint, path, seconds, *how = sys.argv[1:]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    socket = context.socket(zmq.SUB)
    socket.rcvhwm = 0
    for kind in KINDS:
        socket.subscribe(wire.topic(kind))
    socket.connect(endpoint)
    gc.disable()
    try:
        listen(socket, Path(path), time.monotonic() + float(seconds), brief if how == ["brief"] else whole)
    finally:
        context.destroy(linger=0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
