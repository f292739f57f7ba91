"""The control socket: what others may ask of a running engine, and what they may change (docs/bus.md, "Asking the engine").

A request is one frame, a JSON or MessagePack map with `op`; the reply's first frame is JSON. Every request gets exactly one
reply, whatever it holds; nothing that arrives here can raise into the engine.
"""

import asyncio
import contextlib
from typing import Annotated, Any, Protocol

import msgspec
import zmq
from msgspec import Meta, Struct

from clser.engine.doors import Doors
from clser.engine.errors import ClserError, GivenError
from clser.engine.history import PAGE, Entry
from clser.engine.logs import log
from clser.engine.publish import Bus
from clser.engine.sockets import Frames, Inbox, Socket

MOST_REQUEST_BYTES = 16_384
REPLIES_KEPT = 16  # for somebody who asks and does not read
Override = Annotated[str, Meta(max_length=1024)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Prefixes = Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=64)]
EVERYTHING = ("clser/",)


class _Request(Struct, frozen=True, kw_only=True, tag_field="op", forbid_unknown_fields=True):
    id: Annotated[str, Meta(max_length=64)] | Count | None = None
    """Comes back in the reply."""


class Live(_Request, frozen=True, kw_only=True, tag="live"):
    """Does the event loop run?"""


class Ready(_Request, frozen=True, kw_only=True, tag="ready"):
    """Has every worker warmed up, and is none down?"""


class Describe(_Request, frozen=True, kw_only=True, tag="describe"):
    """What runs here: versions, model, classes, streams, settings and when they may change."""


class Snapshot(_Request, frozen=True, kw_only=True, tag="snapshot"):
    """The last message, and the last final, of every topic."""

    prefixes: Prefixes = EVERYTHING
    after: Count = 0


class Replay(_Request, frozen=True, kw_only=True, tag="replay"):
    """What was sent: in the last `seconds`, or those of one topic with the numbers `from_seq` to `to_seq`."""

    prefixes: Prefixes = EVERYTHING
    seconds: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    topic: Annotated[str, Meta(max_length=256)] | None = None
    from_seq: Count = 0
    to_seq: Count = 2**53
    after: Count = 0
    most: Annotated[int, Meta(ge=1, le=PAGE)] = PAGE
    lasting: bool = False
    """Without what is worth nothing later: partial and tentative results, heartbeats."""


class Reload(_Request, frozen=True, kw_only=True, tag="reload"):
    """Read the config again, with `set` upon it, and take over what may change while the engine runs; all of it or nothing."""

    set: Annotated[tuple[Override, ...], Meta(max_length=64)] | Override = ()


class LoadDelta(_Request, frozen=True, kw_only=True, tag="load"):
    """Answer with what `clser-models adapt` wrote upon the model; null: with the model as it is. The reply comes when it is so."""

    delta: Annotated[str, Meta(max_length=4096, min_length=1)] | None


class Mute(_Request, frozen=True, kw_only=True, tag="mute"):
    """An assistant speaks itself: what the stream hears meanwhile is not scored."""

    stream: str
    muted: bool = True


class ResetSpeaker(_Request, frozen=True, kw_only=True, tag="reset_speaker"):
    """Somebody else speaks from here on."""

    stream: str
    speaker: Annotated[str, Meta(max_length=64)] | None = None


Request = Live | Ready | Describe | Snapshot | Replay | Reload | LoadDelta | Mute | ResetSpeaker
OPS: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in Request.__args__)
Facts = dict[str, Any]

_from_json: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_from_msgpack: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)


class Asked(Protocol):
    """What the engine answers and does."""

    def ready(self) -> Facts: ...
    def describe(self) -> Facts: ...
    def reload(self, overrides: tuple[str, ...]) -> Facts: ...
    async def load(self, delta: str | None) -> Facts: ...
    def mute(self, stream: str, muted: bool) -> None: ...
    def reset_speaker(self, stream: str, speaker: str | None) -> None: ...


def read_request(frame: bytes) -> Request:
    if len(frame) > MOST_REQUEST_BYTES:
        raise GivenError(f"a request of {len(frame)} bytes: at most {MOST_REQUEST_BYTES}")
    try:
        return _from_json.decode(frame) if frame[:1] == b"{" else _from_msgpack.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = f"; op is one of {', '.join(OPS)}" if "`$.op`" in str(error) or "`op`" in str(error) else ""
        raise GivenError(f"not a request: {error}{hint}") from error


class Control:
    def __init__(self, engine: Asked, bus: Bus) -> None:
        self._engine = engine
        self._bus = bus
        self._socket: Socket | None = None
        self._inbox: Inbox | None = None
        self._waiting: set[asyncio.Task[None]] = set()
        self.endpoint: str | None = None
        self.refused = 0

    def open(self, endpoint: str, doors: Doors) -> None:
        options = {zmq.MAXMSGSIZE: MOST_REQUEST_BYTES, zmq.SNDHWM: REPLIES_KEPT}
        self._socket = doors.bind(zmq.ROUTER, endpoint, "be asked", options, only_with_keys=True)
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._inbox = Inbox(self._socket, self._asked, burst=1)  # a page of a long history takes a millisecond

    def close(self) -> None:
        for task in self._waiting:
            task.cancel()
        if self._inbox is not None:
            self._inbox.close(linger_ms=100)
        self._inbox = self._socket = self.endpoint = None

    def _asked(self, frames: Frames) -> None:
        envelope, rest = frames[:1], frames[1:]
        if rest and not rest[0]:
            envelope, rest = frames[:2], frames[2:]  # a REQ socket puts an empty frame before what it asks
        op, mark = "", None
        entries: list[Entry] = []
        try:
            if len(rest) != 1:
                raise GivenError(f"a request of {len(rest)} frames: send one")
            request = read_request(rest[0])
            op, mark = str(request.__struct_config__.tag), request.id
            if isinstance(request, LoadDelta):
                self._later(envelope, request)
                return
            facts, entries = self._answer(request)
            reply: Facts = {"op": op, "id": mark, "ok": True, **facts}
        except ClserError as error:
            self.refused += 1
            reply = {"op": op, "id": mark, "ok": False, "reason": str(error)}
        self._send([*envelope, msgspec.json.encode(reply), *(part for e in entries for part in (e.topic, e.body))])

    def _later(self, envelope: Frames, request: LoadDelta) -> None:
        """Its answer takes a while; others are answered meanwhile."""

        async def answer() -> None:
            reply: Facts = {"op": "load", "id": request.id}
            try:
                reply |= {"ok": True, **await self._engine.load(request.delta)}
            except ClserError as error:
                self.refused += 1
                reply |= {"ok": False, "reason": str(error)}
            except Exception as error:  # noqa: BLE001 - our mistake; whoever asked is to hear of it, and the engine goes on
                log.exception("load_broken")
                reply |= {"ok": False, "reason": f"it broke: {type(error).__name__}; please report it"}
            if self._socket is not None:
                self._send([*envelope, msgspec.json.encode(reply)])

        task = asyncio.get_running_loop().create_task(answer(), name="load")
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def _send(self, frames: Frames) -> None:
        assert self._socket is not None and self._inbox is not None
        with contextlib.suppress(zmq.ZMQError):  # the asker has gone, or does not read: that is its own loss
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        self._inbox.look()

    def _answer(self, request: Request) -> tuple[Facts, list[Entry]]:
        facts: Facts = {}
        entries: list[Entry] = []
        match request:
            case Live():
                facts = {"live": True, "epoch": self._bus.epoch}
            case Ready():
                facts = self._engine.ready()
            case Describe():
                facts = self._engine.describe()
            case Snapshot():
                facts, entries = self._snapshot(request)
            case Replay():
                facts, entries = self._replay(request)
            case Reload():
                facts = self._engine.reload((request.set,) if isinstance(request.set, str) else request.set)
            case Mute():
                self._engine.mute(request.stream, request.muted)
            case ResetSpeaker():
                self._engine.reset_speaker(request.stream, request.speaker)
        return facts, entries

    def _snapshot(self, request: Snapshot) -> tuple[Facts, list[Entry]]:
        found = [e for e in self._bus.snapshot(_encoded(request.prefixes)) if e.order > request.after]
        entries = found[:PAGE]
        return _page_facts(entries, len(found) > PAGE), entries

    def _replay(self, request: Replay) -> tuple[Facts, list[Entry]]:
        history = self._bus.history
        how: Facts = {"after": request.after, "lasting": request.lasting, "most": request.most}
        if request.topic is None:
            from_s = self._bus.now_s() - request.seconds
            page = history.since(from_s, _encoded(request.prefixes), **how)
            return _page_facts(page.entries, page.more), page.entries
        topic, first, last = (
            request.topic.encode(),
            request.from_seq,
            min(request.to_seq, self._bus.last_seq(request.topic)),
        )
        page = history.of(topic, first, last, **how)
        lasting, passing = history.known(topic, first, last)
        facts = {
            "gone": max(0, last - max(first, 1) + 1) - lasting - passing,
            "passed": passing if request.lasting else 0,
        }
        return {**_page_facts(page.entries, page.more), **facts}, page.entries


def _encoded(prefixes: tuple[str, ...]) -> list[bytes]:
    return [prefix.encode() for prefix in prefixes]


def _page_facts(entries: list[Entry], more: bool) -> Facts:
    return {"count": len(entries), "more": more, "after": entries[-1].order if entries else 0}
