"""The bus: every message goes out once on XPUB, and the last ones are kept for whoever joins late or missed some.

A subscription makes XPUB say what was subscribed to; the kept messages under that prefix are sent soon after. Subscribers
that had them already see an old `seq` and pass over them. What was sent in the last minute stays in the `History`.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec
import zmq
from msgspec import Meta, Struct

from clser.engine import wire
from clser.engine.clock import Clock
from clser.engine.doors import Doors
from clser.engine.history import Entry, History
from clser.engine.places import default_endpoint
from clser.engine.psi import Psi
from clser.engine.records import Message, Result, Status
from clser.engine.sockets import Frames, Inbox, Socket
from clser.engine.tally import Tally
from clser.engine.wire import Form

Tap = Callable[[Message], None]
KEPT = 4096  # topics
LINGER_MS = 500  # for what was published to be delivered before the socket goes
MOST_SUBSCRIPTION_BYTES = 128  # our longest topic has 85; each costs memory, and how many there are is theirs to say
MOST_HANDSHAKE_BYTES = 1024  # CURVE's is longer, and those who pass it are known
JOINED_AT_ONCE = 64  # prefixes of late joiners that wait; more joiners than this get everything
RESEND_S = 0.0002  # how long each message sent again holds back the next late joiners' turn


class BusConfig(Struct, frozen=True, forbid_unknown_fields=True):
    publish: str = "auto"
    """Where to bind: `auto` (a socket in the user's runtime folder), a ZeroMQ endpoint, or empty for no socket."""
    control: str = "auto"
    """Where the engine can be asked things: `auto` (ipc, beside `publish`), a ZeroMQ endpoint, or empty for nowhere."""
    keys: str = ""
    """A folder of CURVE keys: tcp endpoints then let in those on its allow-list and nobody else."""
    wire: Form = "json"
    """`json`, `msgpack`, or `psi` for Microsoft's \\psi."""
    heartbeat_s: Annotated[float, Meta(gt=0)] = 1.0
    send_queue: Annotated[int, Meta(ge=1)] = 200
    """Messages kept for a subscriber that does not keep up; more are lost to it, until it asks for them."""
    send_buffer_bytes: Annotated[int, Meta(ge=4096)] = 32_768
    """The kernel's buffer for each subscriber: small, so that what a slow one reads is not stale."""
    replay_s: Annotated[float, Meta(ge=0)] = 60.0
    """How long what was sent is kept for whoever missed it."""
    replay_mb: Annotated[float, Meta(ge=0)] = 32.0
    """And how much of it; where that is too little, partial results go before finals."""


class Bus:
    """Numbers the messages, sends them, keeps them for a while, and hands them to taps inside the process."""

    def __init__(self, config: BusConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self.epoch = time.time_ns() // 1_000_000
        self.history = History(config.replay_s, round(config.replay_mb * 2**20))
        self._seq: Tally[bytes] = Tally(KEPT)
        self._psi = Psi(KEPT) if config.wire == "psi" else None
        self._last: dict[bytes, dict[str, Entry]] = {}
        self._taps: list[tuple[Tap, Callable[[], None], bool]] = []
        self._frame_subscriptions = 0
        self._joined: set[bytes] = set()
        self._joiners_turn: asyncio.Handle | None = None
        self._resent_until_s = 0.0
        self._socket: Socket | None = None
        self._inbox: Inbox | None = None
        self.endpoint: str | None = None
        self.sent = 0
        self.unread = 0
        """Messages dropped because nobody in this process read them."""

    def open(self, doors: Doors) -> None:
        """Bind, or raise MissingError where somebody else has the endpoint."""
        if not self._config.publish:
            return
        endpoint = default_endpoint() if self._config.publish == "auto" else self._config.publish
        options = {
            zmq.XPUB_VERBOSER: 1,
            zmq.SNDHWM: self._config.send_queue,
            zmq.SNDBUF: self._config.send_buffer_bytes,
            zmq.MAXMSGSIZE: MOST_HANDSHAKE_BYTES if self._config.keys else MOST_SUBSCRIPTION_BYTES,
        }
        self._socket = doors.bind(zmq.XPUB, endpoint, "publish", options)
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._inbox = Inbox(self._socket, self._subscribed)

    def close(self) -> None:
        if self._inbox is not None:
            self._inbox.close(LINGER_MS)
        if self._joiners_turn is not None:
            self._joiners_turn.cancel()
        self._inbox = self._socket = self._joiners_turn = self.endpoint = None
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
            body = self._body(topic, stamped)
            self._keep(topic, stamped, body)
            self._socket.send_multipart((topic, body), zmq.NOBLOCK)  # XPUB never blocks: it drops for whoever is full
            self._inbox.look()
            self.sent += 1
        for tap, _, frames in tuple(self._taps):
            if frames or kind != "frame":
                tap(stamped)
        return stamped

    def _body(self, topic: bytes, message: Message) -> bytes:
        if self._psi is not None:
            return self._psi.body(topic, message, self._clock.unix_us())
        return wire.encode(message, self._config.wire)

    def _count(self, topic: bytes) -> int:
        """The topic's next number."""
        seq = self._seq.last(topic) + 1
        forgotten = self._seq.put(topic, seq)
        if forgotten is not None:
            self._last.pop(forgotten, None)
        return seq

    def _keep(self, topic: bytes, message: Message, body: bytes) -> None:
        if wire.kind_of(message) == "frame":
            return
        passing = (isinstance(message, Result) and not message.final) or (
            isinstance(message, Status) and message.event == "heartbeat"
        )
        entry = self.history.put(self._clock.monotonic_s(), topic, message.seq, body, not passing)
        kept = self._last.setdefault(topic, {})
        kept["any"] = entry
        if isinstance(message, Result) and message.final:
            kept["final"] = entry

    def now_s(self) -> float:
        """By the clock that the history goes by."""
        return self._clock.monotonic_s()

    def last_seq(self, topic: str) -> int:
        """The number of the topic's last message, as far as anybody could know one."""
        return self._seq.last(topic.encode())

    # --- late joiners ---------------------------------------------------------------------------------------------

    def snapshot(self, prefixes: Iterable[bytes]) -> list[Entry]:
        """The last message, and the last final, of every topic under the prefixes, in the order they were sent."""
        starts = tuple(prefixes)
        found = (kept.values() for topic, kept in self._last.items() if topic.startswith(starts))
        return sorted({entry for entries in found for entry in entries})

    def _subscribed(self, frames: Frames) -> None:
        change, prefix = frames[0][:1], frames[0][1:]
        if change not in (b"\x00", b"\x01"):
            return  # a subscriber may send what it likes; XPUB hands it on, and nobody here wants it
        if wire.topic("frame").startswith(prefix) or prefix.startswith(wire.topic("frame")):
            self._frame_subscriptions = max(0, self._frame_subscriptions + (1 if change == b"\x01" else -1))
        if change == b"\x01" and self._psi is None:  # \psi breaks over a message that comes again
            self._joined.add(prefix if len(self._joined) < JOINED_AT_ONCE else b"")
            wait_s = self._resent_until_s - self._clock.monotonic_s()
            if self._joiners_turn is None and wait_s > 0:
                self._joiners_turn = asyncio.get_running_loop().call_later(wait_s, self._greet)
            elif self._joiners_turn is None:
                self._greet()

    def _greet(self) -> None:
        """Send late joiners what they came too late for. All subscribers get it, so those who join all the time wait."""
        self._joiners_turn = None
        entries = self.snapshot(self._joined)
        self._joined.clear()
        if self._socket is None:
            return
        for entry in entries:
            self._socket.send_multipart((entry.topic, entry.body), zmq.NOBLOCK)
        self._resent_until_s = self._clock.monotonic_s() + len(entries) * RESEND_S
