"""The bus: every message goes out once on XPUB, and the last ones are kept for whoever joins late.

A subscription makes XPUB say what was subscribed to; the kept messages under that prefix are sent at once. Subscribers
that had them already see an old `seq` and pass over them.
"""

import fcntl
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Annotated

import msgspec
import zmq
from msgspec import Meta, Struct

from clser.engine import wire
from clser.engine.errors import MissingError
from clser.engine.places import check_private, default_endpoint
from clser.engine.records import Message, Result
from clser.engine.sockets import Frames, Inbox, Socket
from clser.engine.tally import Tally
from clser.engine.wire import Wire

Tap = Callable[[Message], None]
KEPT = 4096  # topics
LINGER_MS = 500  # for what was published to be delivered before the socket goes


class BusConfig(Struct, frozen=True, forbid_unknown_fields=True):
    publish: str = "auto"
    """Where to bind: `auto` (a socket in the user's runtime folder), a ZeroMQ endpoint, or empty for no socket."""
    wire: Wire = "json"
    heartbeat_s: Annotated[float, Meta(gt=0)] = 1.0
    send_queue: Annotated[int, Meta(ge=1)] = 200
    """Messages kept for a subscriber that does not keep up; more are lost to it."""
    send_buffer_bytes: Annotated[int, Meta(ge=4096)] = 32_768
    """The kernel's buffer for each subscriber: small, so that what a slow one reads is not stale."""


class Bus:
    """Numbers the messages, sends them, and hands them to taps inside the process."""

    def __init__(self, config: BusConfig) -> None:
        self._config = config
        self.epoch = time.time_ns() // 1_000_000
        self._seq: Tally[bytes] = Tally(KEPT)
        self._last: dict[bytes, dict[str, bytes]] = {}
        self._taps: list[tuple[Tap, Callable[[], None], bool]] = []
        self._frame_subscriptions = 0
        self._context: zmq.Context[Socket] | None = None
        self._socket: Socket | None = None
        self._inbox: Inbox | None = None
        self._lock: IO[str] | None = None
        self.endpoint: str | None = None
        self.sent = 0
        self.unread = 0
        """Messages dropped because nobody in this process read them."""

    def open(self) -> None:
        """Bind, or raise MissingError where somebody else has the endpoint."""
        if not self._config.publish:
            return
        endpoint = default_endpoint() if self._config.publish == "auto" else self._config.publish
        check_private(endpoint)
        self._lock = _lock_ipc(endpoint)
        self._context = zmq.Context(io_threads=1)
        self._socket = socket = self._context.socket(zmq.XPUB)
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        socket.sndhwm = self._config.send_queue
        socket.setsockopt(zmq.SNDBUF, self._config.send_buffer_bytes)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            self.close()
            raise MissingError(
                f"cannot publish on {endpoint} ({error}): stop what uses it, or give another with --bind"
            ) from error
        self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._inbox = Inbox(socket, self._subscribed)

    def close(self) -> None:
        if self._inbox is not None:
            self._inbox.close(LINGER_MS)
        if self._context is not None:
            self._context.term()
        self._inbox = self._socket = self._context = self.endpoint = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        for _, end, _ in self._taps:
            end()
        self._taps.clear()

    def tap(self, tap: Tap, end: Callable[[], None], frames: bool) -> Callable[[], None]:
        """Have `tap` called with every message (with the continuous track, if `frames`), and `end` when the bus closes.

        Call what is returned to end it sooner.
        """
        entry = (tap, end, frames)
        self._taps.append(entry)
        return lambda: self._taps.remove(entry) if entry in self._taps else None

    @property
    def frames_wanted(self) -> bool:
        """Whether anybody listens to the continuous track; nobody pays for it otherwise."""
        return self._frame_subscriptions > 0 or any(frames for _, _, frames in self._taps)

    def publish(self, message: Message) -> Message:
        """Number the message and send it; returned as it was sent."""
        kind = wire.kind_of(message)
        topic = wire.topic(kind, message.stream)
        seq = self._count(topic)
        stamped = msgspec.structs.replace(message, epoch=self.epoch, seq=seq)
        if self._socket is not None and self._inbox is not None:
            body = wire.encode(stamped, self._config.wire)
            self._keep(topic, kind, stamped, body)
            self._socket.send_multipart((topic, body), zmq.NOBLOCK)  # XPUB never blocks: it drops for whoever is full
            self._inbox.look()
            self.sent += 1
        for tap, _, frames in tuple(self._taps):
            if frames or kind != "frame":
                tap(stamped)
        return stamped

    def _count(self, topic: bytes) -> int:
        """The topic's next number."""
        seq = self._seq.last(topic) + 1
        forgotten = self._seq.put(topic, seq)
        if forgotten is not None:
            self._last.pop(forgotten, None)
        return seq

    def _keep(self, topic: bytes, kind: str, message: Message, body: bytes) -> None:
        if kind == "frame":
            return
        kept = self._last.setdefault(topic, {})
        kept["any"] = body
        if isinstance(message, Result) and message.final:
            kept["final"] = body

    def _subscribed(self, frames: Frames) -> None:
        change, prefix = frames[0][:1], frames[0][1:]
        if change not in (b"\x00", b"\x01"):
            return  # a subscriber may send what it likes; XPUB hands it on, and nobody here wants it
        if wire.topic("frame").startswith(prefix) or prefix.startswith(wire.topic("frame")):
            self._frame_subscriptions = max(0, self._frame_subscriptions + (1 if change == b"\x01" else -1))
        if change == b"\x00" or self._socket is None:
            return
        for topic, kept in tuple(self._last.items()):
            if topic.startswith(prefix):
                for body in dict.fromkeys((kept.get("final"), kept["any"])):
                    if body is not None:
                        self._socket.send_multipart((topic, body), zmq.NOBLOCK)


def _lock_ipc(endpoint: str) -> IO[str] | None:
    """ZeroMQ binds over another process's ipc socket without a word; a lock beside it keeps two engines apart."""
    if not endpoint.startswith("ipc://") or endpoint.startswith("ipc://@"):
        return None
    path = Path(endpoint.removeprefix("ipc://") + ".lock")
    try:
        lock = path.open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise MissingError(
            f"cannot publish on {endpoint}: another engine does; stop it, or give another place with --bind"
        ) from None
    except OSError as error:
        raise MissingError(
            f"cannot publish on {endpoint} ({error.strerror}): give another place with --bind"
        ) from error
    return lock
