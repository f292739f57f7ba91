"""Sockets that connect to an engine: how they come back, how they are waited for, and what is in their frames."""

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from clser.engine import wire
from clser.engine.errors import ClserError, GivenError
from clser.engine.keys import Keys, read_keys, unlock
from clser.engine.records import Message
from clser.engine.sockets import KEEP_ALIVE

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

MOST_BYTES = 1 << 20  # a message of ours has a few KB
ENDS_BYTES = (
    1 << 26
)  # at this size ZeroMQ ends the connection, and does not come back: so only where memory is at stake
AGAIN_MS, AGAIN_MOST_MS = 100, 1000  # after which an engine that has gone is looked for


class Closing:
    """What is closed at the end of its `with` block."""

    def close(self) -> None:
        raise AssertionError("whoever opens something says how it is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def keys_for(endpoint: str, folder: str | Path | None) -> Keys | None:
    """The keys to connect there with: what is not tcp needs none."""
    return read_keys(folder) if folder is not None and endpoint.startswith("tcp://") else None


def connect(
    context: Context, kind: int, endpoint: str, keys: Keys | None, options: Mapping[int, int] | None = None
) -> Socket:
    """A socket to an engine that may come and go."""
    socket = context.socket(kind)
    settings: dict[int, int] = {
        zmq.LINGER: 0,
        zmq.MAXMSGSIZE: ENDS_BYTES,
        zmq.RECONNECT_IVL: AGAIN_MS,
        zmq.RECONNECT_IVL_MAX: AGAIN_MOST_MS,
        **KEEP_ALIVE,
        **(options or {}),
    }
    for option, value in settings.items():
        socket.setsockopt(option, value)
    try:
        if keys is not None:
            unlock(socket, keys)
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise GivenError(f"endpoint {endpoint!r}: {error}; give auto, ipc://PATH or tcp://HOST:PORT") from error
    except ClserError:
        socket.close()
        raise
    return socket


def wait(sockets: list[Socket], timeout_s: float | None) -> None:
    """Return when one of them can be read, or after that time (None: never)."""
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    poller.poll(None if timeout_s is None else max(0, math.ceil(timeout_s * 1000)))


async def changed(sockets: list[Socket], timeout_s: float | None) -> None:
    """`wait` for an event loop. Their descriptors tell of changes only, so first receive until nothing is left."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    descriptors = [int(socket.getsockopt(zmq.FD)) for socket in sockets]
    for descriptor in descriptors:
        loop.add_reader(descriptor, woken.set)
    timer = None if timeout_s is None else loop.call_later(max(0.0, timeout_s), woken.set)
    try:
        await woken.wait()
    finally:
        if timer is not None:
            timer.cancel()
        for descriptor in descriptors:
            loop.remove_reader(descriptor)


def receive(socket: Socket) -> list[bytes] | None:
    """The frames of a message that is there already."""
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


def read(frames: list[bytes]) -> Message | None:
    """The message in a topic and a body, or None if it is none of ours."""
    try:
        topic, body = frames
        if len(body) > MOST_BYTES:
            return None
        message = wire.decode(body)
        ours = topic == wire.topic(wire.kind_of(message), message.stream) and message.seq > 0
    except (ClserError, ValueError, RecursionError):
        return None
    return message if ours else None
