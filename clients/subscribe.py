"""What an engine publishes, for another program: read it in a plain loop or with `async for`.

with Subscriber() as subscriber:
    for message in subscriber:
        ...
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Self

import zmq

from clser.engine import wire
from clser.engine.errors import ClserError, GivenError
from clser.engine.places import default_endpoint
from clser.engine.records import ENGINE, Message, Result

QUEUE = 50  # messages ZeroMQ keeps for a reader that does not keep up
BUFFER_BYTES = 16_384  # the kernel's: small, since what lies in it only gets older
MOST_BYTES = 1 << 20  # a message of ours has a few KB
MOST_WAITING = 1024
BURST = 64  # messages in a row before others get their turn
MOST_TOPICS = 4096


class Subscriber:
    """Messages in the order they were sent, each once. What is not ours is counted in `refused` and passed over."""

    def __init__(
        self,
        endpoint: str = "auto",
        *,
        kind: str | Sequence[str] | None = None,
        stream: str | None = None,
        timeout_s: float | None = None,
        keep_latest: bool = False,
        with_engine: bool = False,
    ) -> None:
        """`kind` and `stream` choose (without them: everything, the continuous track too); `with_engine` adds the engine's
        own status. Iteration ends when nothing came for `timeout_s`. With `keep_latest`, partials and frames that newer
        ones of their topic have overtaken are left out, so that a slow reader is always up to date; finals never are.
        """
        kinds: Sequence[str | None] = [kind] if kind is None or isinstance(kind, str) else kind
        prefixes = {prefix for each in kinds for prefix in wire.prefixes(each, stream)}
        if with_engine:
            prefixes.add(wire.topic("status", ENGINE))
        self.endpoint = default_endpoint() if endpoint == "auto" else endpoint
        self.timeout_s = timeout_s
        self.missed = 0
        """Messages that were sent and did not get here."""
        self.refused = 0
        """Messages that are none of ours."""
        self.overtaken = 0
        """Messages left out because a newer one was there already."""
        self._keep_latest = keep_latest
        self._waiting: dict[object, Message] = {}
        self._taken = self._served = 0
        self._last: dict[bytes, tuple[int, int]] = {}
        self._just_joined: set[bytes] = set()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.SUB)
        self._socket.rcvhwm = QUEUE
        self._socket.setsockopt(zmq.RCVBUF, BUFFER_BYTES)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        for prefix in prefixes:
            self._socket.subscribe(prefix)
        try:
            self._socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise GivenError(f"endpoint {endpoint!r}: {error}; give auto, ipc://PATH or tcp://HOST:PORT") from error

    def close(self) -> None:
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Message]:
        while (message := self.receive(self.timeout_s)) is not None:
            yield message

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message, or None if none came in that time (None waits for ever, 0 not at all)."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            message = self._next()
            if message is not None:
                return message
            left_ms = None if until is None else max(0, round((until - time.monotonic()) * 1000))
            if not self._socket.poll(left_ms) and left_ms is not None:
                return None

    async def __aiter__(self) -> AsyncIterator[Message]:
        while (message := await self.areceive(self.timeout_s)) is not None:
            yield message

    async def areceive(self, timeout_s: float | None = None) -> Message | None:
        """`receive` for an event loop."""
        self._served += 1
        if self._served % BURST == 0:
            await asyncio.sleep(0)
        try:
            async with asyncio.timeout(timeout_s):
                while (message := self._next()) is None:
                    await self._readable()
        except TimeoutError:
            return None
        return message

    async def _readable(self) -> None:
        # Its descriptor tells of changes only, so this is right only after a receive that found nothing.
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        descriptor = self._socket.get(zmq.FD)
        assert isinstance(descriptor, int)
        loop.add_reader(descriptor, changed.set)
        try:
            await changed.wait()
        finally:
            loop.remove_reader(descriptor)

    def _next(self) -> Message | None:
        """A message that is there already."""
        if not self._keep_latest:
            return self._take()
        while len(self._waiting) < MOST_WAITING and (message := self._take()) is not None:
            topic = (wire.kind_of(message), message.stream)
            passing = topic[0] == "frame" or (isinstance(message, Result) and not message.final)
            if topic[0] in ("frame", "result") and self._waiting.pop(topic, None) is not None:
                self.overtaken += 1
            self._taken += 1
            self._waiting[topic if passing else self._taken] = message
        if not self._waiting:
            return None
        return self._waiting.pop(next(iter(self._waiting)))

    def _take(self) -> Message | None:
        """The next message in the socket that is ours and new."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return None
            try:
                topic, body = frames
                message = wire.decode(body)
            except (ClserError, ValueError, RecursionError):
                self.refused += 1
                continue
            if topic != wire.topic(wire.kind_of(message), message.stream):
                self.refused += 1
            elif self._is_new(topic, message):
                return message

    def _is_new(self, topic: bytes, message: Message) -> bool:
        """Whether it was not here before: whoever joins late makes the engine send the last messages to everybody again."""
        epoch, seq = self._last.pop(topic, (0, 0))
        known = epoch == message.epoch
        new = not known or message.seq > seq
        self._last[topic] = (message.epoch, message.seq) if new else (epoch, seq)
        if not new:
            return False
        if not known:
            self._just_joined.add(topic)
        else:
            # On joining, a stream's last final comes before its last result: what lies between them is not missing.
            if topic not in self._just_joined or not isinstance(message, Result):
                self.missed += message.seq - seq - 1
            self._just_joined.discard(topic)
        if len(self._last) > MOST_TOPICS:
            oldest = next(iter(self._last))
            del self._last[oldest]
            self._just_joined.discard(oldest)
        return True
