"""Sound over ZeroMQ from other processes and machines, many streams on one socket (docs/bus.md, "Ingest").

Each message is a header and, for `audio`, raw samples. What is wrong is refused with a reason and counted; nothing that
arrives here can raise into the engine.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import zmq
from msgspec import Meta, Struct

from clser.engine.errors import ClserError, GivenError, MissingError
from clser.engine.logs import log
from clser.engine.places import check_private
from clser.engine.records import SampleFormat
from clser.engine.resample import BYTES
from clser.engine.sockets import Frames, Inbox, Socket
from clser.engine.sources import SourceSettings

if TYPE_CHECKING:
    from clser.engine.api import Engine, Stream

MOST_HEADER_BYTES = 4096
MOST_PACKET_BYTES = 48_000 * 8 * 4  # a second of the widest layout; each stream's own second is checked on arrival
LOOK_S = 1.0


Count = Annotated[int, Meta(ge=0, le=2**53)]  # what JavaScript can count to, and no arithmetic of ours overflows


class Header(Struct, frozen=True):
    op: Literal["open", "audio", "close"]
    stream: str
    speaker: str | None = None
    start_sample: Count | None = None
    sample_rate_hz: Count = 16_000
    channels: Count = 1
    format: SampleFormat = "s16"
    captured_unix_us: Count | None = None


class Reply(Struct, frozen=True, omit_defaults=True):
    op: Literal["opened", "refused", "closed"]
    stream: str
    reason: str = ""


_from_json = msgspec.json.Decoder(Header)
_from_msgpack = msgspec.msgpack.Decoder(Header)


def read_header(frame: bytes) -> Header:
    """A JSON or MessagePack map of at most 4 KB."""
    if len(frame) > MOST_HEADER_BYTES:
        raise GivenError(f"a header of {len(frame)} bytes: at most {MOST_HEADER_BYTES}")
    try:
        return _from_json.decode(frame) if frame[:1] == b"{" else _from_msgpack.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GivenError(f"not a header: {error}") from error


class _Guest:
    """A stream and the layout it was opened with."""

    def __init__(self, stream: "Stream", header: Header, now_s: float) -> None:
        self.stream = stream
        self.second_bytes = header.sample_rate_hz * header.channels * BYTES[header.format]
        self.heard_s = now_s


class Ingest:
    def __init__(self, endpoint: str, settings: SourceSettings) -> None:
        check_private(endpoint)
        self._settings = settings
        self._context = zmq.Context(io_threads=1)
        self._socket: Socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MOST_PACKET_BYTES)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a robot that reconnects under its name takes its place again
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise MissingError(
                f"cannot listen for sound on {endpoint} ({error}): stop what uses it, or give another"
            ) from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._guests: dict[tuple[bytes, str], _Guest] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.refused = 0

    async def run(self, engine: "Engine") -> None:
        self._engine = engine
        inbox = Inbox(self._socket, self._receive)
        try:
            while True:
                await self._settings.clock.sleep(LOOK_S)
                for key, guest in tuple(self._guests.items()):
                    if self._settings.clock.monotonic_s() - guest.heard_s > self._settings.ingest.idle_s:
                        log.warning("idle_stream_closed", stream=key[1])
                        self._close(*key)
        finally:
            inbox.close(linger_ms=200)
            self._context.term()

    def _receive(self, frames: Frames) -> None:
        guest_id, *rest = frames
        name = ""
        try:
            if not 1 <= len(rest) <= 2:
                raise GivenError(f"a message of {len(rest)} frames: send a header, and samples behind it for audio")
            header = read_header(rest[0])
            name = header.stream
            self._do(guest_id, header, rest[1] if len(rest) > 1 else b"")
        except ClserError as error:
            self.refused += 1
            self._reply(guest_id, Reply("refused", name[:64], str(error)))

    def _do(self, guest_id: bytes, header: Header, pcm: bytes) -> None:
        key = (guest_id, header.stream)
        if header.op == "open":
            if len(self._guests) >= self._settings.ingest.most_streams:
                raise GivenError(f"{len(self._guests)} streams are open, which is all this engine takes: try later")
            stream = self._engine.open(
                header.stream,
                sample_rate_hz=header.sample_rate_hz,
                channels=header.channels,
                format=header.format,
                speaker=header.speaker,
            )
            self._guests[key] = _Guest(stream, header, self._settings.clock.monotonic_s())
            self._reply(guest_id, Reply("opened", header.stream))
            return
        guest = self._guests.get(key)
        if guest is None:
            raise GivenError(f"stream {header.stream!r} is not open: send op open first")
        if header.op == "close":
            self._close(*key)
            return
        if len(pcm) > guest.second_bytes:
            raise GivenError(f"a packet of {len(pcm)} bytes: at most a second, {guest.second_bytes}")
        guest.heard_s = self._settings.clock.monotonic_s()
        guest.stream.push(pcm, header.captured_unix_us, header.start_sample)

    def _close(self, guest_id: bytes, name: str) -> None:
        guest = self._guests.pop((guest_id, name))

        async def drain() -> None:
            try:
                await guest.stream.close()
            except ClserError as error:  # the engine's failure, which it tells itself
                self._reply(guest_id, Reply("refused", name, str(error)))
            else:
                self._reply(guest_id, Reply("closed", name))

        task = asyncio.create_task(drain(), name=f"close {name}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _reply(self, guest_id: bytes, reply: Reply) -> None:
        with contextlib.suppress(
            zmq.ZMQError
        ):  # the guest has gone, or does not read: it loses a reply, nobody else does
            self._socket.send_multipart((guest_id, msgspec.json.encode(reply)), zmq.NOBLOCK)


def open_source(rest: str, name: str | None, settings: SourceSettings) -> Ingest:
    if name is not None:
        raise GivenError(f"device '{name}=zmq:...': its streams name themselves; leave the name away")
    if not rest:
        raise GivenError("device 'zmq': give where to listen, as in zmq:tcp://127.0.0.1:5557 or zmq:ipc:///tmp/sound")
    return Ingest(rest, settings)
