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

from clser.engine.doors import SOUND
from clser.engine.errors import ClserError, GivenError
from clser.engine.logs import log
from clser.engine.records import SampleFormat
from clser.engine.resample import BYTES, check_layout
from clser.engine.sockets import Frames, Inbox
from clser.engine.sources import SourceSettings

if TYPE_CHECKING:
    from clser.engine.api import Engine, Stream

MOST_HEADER_BYTES = 4096
MOST_PACKET_BYTES = 48_000 * 8 * 4  # a second of the widest layout; each stream's own second is checked on arrival
MOST_WAITING = 256
MOST_TOLD = 4096
LOOK_S = AGAIN_S = 1.0
OPTIONS = {
    zmq.MAXMSGSIZE: MOST_PACKET_BYTES,
    zmq.RCVHWM: 200,  # packets of one connection that wait for us
    zmq.ROUTER_HANDOVER: 1,  # a robot that reconnects under its own routing id takes its place again
}

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
    """A stream, the connection it comes from, and the layout it was opened with."""

    def __init__(self, sender: bytes, header: Header, now_s: float) -> None:
        self.sender = sender
        self.second_bytes = header.sample_rate_hz * header.channels * BYTES[header.format]
        self.heard_s = now_s
        self.stream: Stream | None = None
        """None while the one before it under that name gets its last final."""
        self.waiting: list[tuple[Header, bytes]] = []
        """What has come meanwhile."""

    def wait(self, header: Header, pcm: bytes) -> None:
        if len(self.waiting) >= MOST_WAITING or sum(len(sound) for _, sound in self.waiting) > 2 * self.second_bytes:
            raise GivenError(f"stream {header.stream!r} is not open yet: wait for `opened`")
        self.waiting.append((header, pcm))


class Ingest:
    def __init__(self, endpoint: str, settings: SourceSettings) -> None:
        self.endpoint = endpoint
        self._settings = settings
        self._now_s = settings.clock.monotonic_s
        self._guests: dict[str, _Guest] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._told_s: dict[tuple[bytes, str], float] = {}
        """When each stream's sound was last refused, the newest last."""
        self.packets = self.late = self.refused = 0

    @property
    def counters(self) -> dict[str, float]:
        """For the engine's status."""
        return {
            "ingest_streams": len(self._guests),
            "ingest_packets": self.packets,
            "ingest_late": self.late,
            "ingest_refused": self.refused,
        }

    async def run(self, engine: "Engine") -> None:
        self._engine = engine
        self._socket = engine.doors.bind(zmq.ROUTER, self.endpoint, "listen for sound", OPTIONS, thread=SOUND)
        self._inbox = Inbox(self._socket, self._receive)
        inbox = self._inbox
        engine.others.append(lambda: self.counters)
        engine.waits.append(lambda: inbox.behind_s)
        try:
            while True:
                await self._settings.clock.sleep(LOOK_S)
                for name, guest in tuple(self._guests.items()):
                    if guest.stream is not None and self._silent_s(guest) > self._settings.ingest.idle_s:
                        log.warning("idle_stream_closed", stream=name)
                        self._close(name, Reply("closed", name))
        finally:
            for task in self._opening:
                task.cancel()
            self._inbox.close(linger_ms=200)

    def _silent_s(self, guest: _Guest) -> float:
        return self._now_s() - guest.heard_s

    def _receive(self, frames: Frames) -> None:
        sender, *rest = frames
        try:
            if not 1 <= len(rest) <= 2:
                raise GivenError(f"a message of {len(rest)} frames: send a header, and samples behind it for audio")
            header = read_header(rest[0])
        except GivenError as error:
            self._refuse(sender, "", error, often=False)
            return
        self._attempt(sender, header, rest[1] if len(rest) > 1 else b"")

    def _attempt(self, sender: bytes, header: Header, pcm: bytes) -> None:
        try:
            if header.op == "open":
                self._open(sender, header)
            else:
                self._serve(sender, header, pcm)
        except ClserError as error:
            self._refuse(sender, header.stream, error, often=header.op != "audio")

    def _serve(self, sender: bytes, header: Header, pcm: bytes) -> None:
        guest = self._guests.get(header.stream)
        if guest is None or guest.sender != sender:
            whose = "not open" if guest is None else "another connection's"
            raise GivenError(f"stream {header.stream!r} is {whose}: send op open first")
        if header.op == "audio" and not pcm:
            raise GivenError(f"stream {header.stream!r}: a packet without sound says nothing")
        if len(pcm) > guest.second_bytes:
            raise GivenError(f"a packet of {len(pcm)} bytes: at most a second, {guest.second_bytes}")
        guest.heard_s = self._now_s()
        if guest.stream is None:
            guest.wait(header, pcm)
        elif header.op == "close":
            self._close(header.stream, Reply("closed", header.stream))
        else:
            self.late += header.start_sample is not None and header.start_sample < guest.stream.next_sample
            guest.stream.push(pcm, header.captured_unix_us, header.start_sample)
            self.packets += 1

    # --- opening and closing --------------------------------------------------------------------------------------

    def _open(self, sender: bytes, header: Header) -> None:
        """A new stream; or one that starts again, or is taken over, behind the last final of the one before it."""
        name, most = header.stream, self._settings.ingest.most_streams
        check_layout(header.sample_rate_hz, header.channels, header.format)
        held = self._guests.get(name)
        if held is not None:
            self._check_free(held, sender, name)
            # who starts again waits for `opened`, and would only be confused by a `closed`
            gone = Reply("closed", name, "another connection has taken it over")
            self._close(name, None if held.sender == sender else gone)
        elif len(self._guests.keys() | self._leaving.keys()) >= most and name not in self._leaving:
            raise GivenError(f"{most} streams are open, which is all this engine takes: try later")
        guest = self._guests[name] = _Guest(sender, header, self._now_s())
        if name not in self._leaving:
            self._admit(guest, header)
            return
        task = asyncio.create_task(self._admit_after(self._leaving[name], guest, header), name=f"open {name}")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _check_free(self, held: _Guest, sender: bytes, name: str) -> None:
        if held.stream is None:
            raise GivenError(f"stream {name!r} is being opened: wait for `opened`")
        enough_s = self._settings.ingest.takeover_s
        if held.sender != sender and self._silent_s(held) < enough_s:
            raise GivenError(
                f"stream {name!r} is another connection's: take another name, or wait until it is silent for {enough_s:g} s"
            )

    def _admit(self, guest: _Guest, header: Header, again: bool = False) -> None:
        try:
            guest.stream = self._engine.open(
                header.stream,
                sample_rate_hz=header.sample_rate_hz,
                channels=header.channels,
                format=header.format,
                speaker=header.speaker,
                results=False,
                again=again,  # it has just given up its place
            )
        except ClserError:
            del self._guests[header.stream]
            raise
        self._reply(guest.sender, Reply("opened", header.stream))

    async def _admit_after(self, leaving: "asyncio.Task[None]", guest: _Guest, header: Header) -> None:
        await asyncio.wait({leaving})
        try:
            self._admit(guest, header, again=True)
        except ClserError as error:
            self._refuse(guest.sender, header.stream, error)
        else:
            waiting, guest.waiting = guest.waiting, []
            for later, pcm in waiting:
                self._attempt(guest.sender, later, pcm)

    def _close(self, name: str, farewell: Reply | None) -> None:
        """No more sound of it comes; behind its last final, its sender hears `farewell`."""
        guest = self._guests.pop(name)
        assert guest.stream is not None
        stream = guest.stream

        async def drain() -> None:
            said = farewell
            try:
                await stream.close()
            except ClserError as error:  # the engine's failure, which it tells itself
                said = Reply("refused", name, str(error))
            if said is not None:
                self._reply(guest.sender, said)

        task = self._leaving[name] = asyncio.create_task(drain(), name=f"close {name}")
        task.add_done_callback(lambda _: self._leaving.pop(name))

    # --- answers --------------------------------------------------------------------------------------------------

    def _refuse(self, sender: bytes, name: str, error: ClserError, often: bool = True) -> None:
        """Answer and count; sound, which comes fifty times a second, is answered once in that time."""
        self.refused += 1
        stream, now = (sender, name[:64]), self._now_s()
        if not often:
            if now - self._told_s.get(stream, -AGAIN_S) < AGAIN_S:
                return
            self._told_s.pop(stream, None)
            self._told_s[stream] = now
            if len(self._told_s) > MOST_TOLD:
                del self._told_s[next(iter(self._told_s))]
        self._reply(sender, Reply("refused", name[:64], str(error)))

    def _reply(self, sender: bytes, reply: Reply) -> None:
        # the sender may have gone, or not read: then it loses a reply, and nobody else does
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart((sender, msgspec.json.encode(reply)), zmq.NOBLOCK)
        if not self._socket.closed:
            self._inbox.look()


def open_source(rest: str, name: str | None, settings: SourceSettings) -> Ingest:
    if name is not None:
        raise GivenError(f"device '{name}=zmq:...': its streams name themselves; leave the name away")
    if not rest:
        raise GivenError("device 'zmq': give where to listen, as in zmq:tcp://127.0.0.1:5557 or zmq:ipc:///tmp/sound")
    return Ingest(rest, settings)
