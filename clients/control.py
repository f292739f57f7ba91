"""Asking a running engine: how it is, what it sent, and to change something.

with Control() as control:
    print(control.ask("describe")["model"])
    for message in control.replay(seconds=10): ...

With an event loop: `await control.aask("ready")`, `async for message in control.replay(seconds=10)`.
"""

import itertools
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import zmq
from msgspec import Struct

from clser.clients.sockets import MOST_BYTES, Closing, Context, changed, connect, keys_for, read, receive, wait
from clser.engine.errors import GivenError, MissingError
from clser.engine.places import control_beside, default_endpoint
from clser.engine.records import Message

ANSWER_S = 2.0
PATIENCE_S = {"load": 90.0}
"""What takes longer."""
REQUESTS_KEPT = 16  # for an engine that does not take them
MOST_PAIRS = 1024  # in a reply; an engine sends 256
MOST_WORDS = 500

Facts = dict[str, Any]


class Reply(Struct, frozen=True):
    number: int | None
    ok: bool
    facts: Facts
    pairs: list[list[bytes]]
    """Topic and body, as they were published."""

    def answers(self, number: int) -> bool:
        """Whether it is for that question. An engine that cannot read a question cannot tell its number either."""
        return self.number == number or (self.number is None and not self.ok)

    @property
    def rest(self) -> int | None:
        """What to ask with as `after`, where the engine has more to send."""
        after = self.facts.get("after")
        return after if self.facts.get("more") is True and type(after) is int else None


class Control(Closing):
    """One question at a time. An engine that does not answer is asked over a new connection the next time."""

    def __init__(
        self,
        endpoint: str = "auto",
        keys: str | Path | None = None,
        *,
        publish: str = "auto",
        context: Context | None = None,
    ) -> None:
        """`auto` is the control socket beside `publish`, where that is on this machine. `keys` is a folder of CURVE keys."""
        found = control_endpoint(endpoint, publish)
        if found is None:
            raise GivenError(f"no control socket is known for {publish}: give its endpoint with --control")
        self.endpoint = found
        self.refused = 0
        """Replies, and messages in them, that are none of ours."""
        self._keys = keys_for(found, keys)
        self._own = context is None
        self._context = context or zmq.Context(io_threads=1)
        self._numbers = itertools.count(1)
        try:
            self._connect()
        except BaseException:
            if self._own:
                self._context.destroy(linger=0)
            raise

    def _connect(self) -> None:
        options: dict[int, int] = {zmq.SNDHWM: REQUESTS_KEPT, zmq.RCVHWM: REQUESTS_KEPT}
        self.socket = connect(self._context, zmq.DEALER, self.endpoint, self._keys, options)

    def close(self) -> None:
        if self._own:
            self._context.destroy(linger=0)
        else:
            self.socket.close(linger=0)

    # --- questions ------------------------------------------------------------------------------------------------

    def ask(self, op: str, timeout_s: float | None = None, **fields: object) -> Facts:
        """What the engine says to it. GivenError with its reason where it refuses, MissingError where nobody answers."""
        return self.exchange(op, fields, timeout_s).facts

    async def aask(self, op: str, timeout_s: float | None = None, **fields: object) -> Facts:
        """`ask` for an event loop."""
        return (await self.aexchange(op, fields, timeout_s)).facts

    def load(self, delta: str | Path | None) -> Facts:
        """Have the engine answer with what `clser-models adapt` wrote upon its model; None: with the model as it is. The path
        is one of the engine's machine."""
        return self.ask("load", delta=None if delta is None else str(delta))

    async def aload(self, delta: str | Path | None) -> Facts:
        """`load` for an event loop."""
        return await self.aask("load", delta=None if delta is None else str(delta))

    def replay(self, **fields: object) -> "Pages":
        """What was sent and is still known: `seconds`, `prefixes`, `topic`, `from_seq`, `to_seq`, `lasting` (docs/bus.md)."""
        return Pages(self, "replay", fields)

    def snapshot(self, **fields: object) -> "Pages":
        """The last final and the last message of each topic, under `prefixes`."""
        return Pages(self, "snapshot", fields)

    def exchange(self, op: str, fields: Facts, timeout_s: float | None = None) -> Reply:
        number, until_s = self.send(op, fields), time.monotonic() + _patience_s(op, timeout_s)
        while (reply := self._to(number)) is None:
            left_s = self._left_s(until_s, number)
            wait([self.socket], left_s)
        return self._granted(op, reply)

    async def aexchange(self, op: str, fields: Facts, timeout_s: float | None = None) -> Reply:
        number, until_s = self.send(op, fields), time.monotonic() + _patience_s(op, timeout_s)
        while (reply := self._to(number)) is None:
            left_s = self._left_s(until_s, number)
            await changed([self.socket], left_s)
        return self._granted(op, reply)

    def _to(self, number: int | None) -> Reply | None:
        while number is not None and (reply := self.take()) is not None:
            if reply.answers(number):
                return reply
        return None

    def _left_s(self, until_s: float, number: int | None) -> float:
        left_s = until_s - time.monotonic()
        if number is not None and left_s > 0:
            return left_s
        self.start_anew()
        raise MissingError(
            f"no engine answers at {self.endpoint}: start one, or give its control socket with --control"
            + (" (over tcp it may not know our key, or want --keys)" if self.endpoint.startswith("tcp://") else "")
        )

    def _granted(self, op: str, reply: Reply) -> Reply:
        if not reply.ok:
            reason = str(reply.facts.get("reason", "it does not say why"))[:MOST_WORDS]
            raise GivenError(f"the engine refuses {op}: {reason}")
        return reply

    # --- without waiting ------------------------------------------------------------------------------------------

    def send(self, op: str, fields: Facts) -> int | None:
        """Ask, and return the number that the reply will have; None where certainly nobody is there to ask."""
        path = self.endpoint.removeprefix("ipc://")
        if path != self.endpoint and path[:1] != "@" and not Path(path).exists():
            return None
        number = next(self._numbers)
        try:
            self.socket.send(msgspec.json.encode({**fields, "op": op, "id": number}), zmq.NOBLOCK)
        except zmq.Again:
            return None
        return number

    def take(self) -> Reply | None:
        """A reply that is there already; what is none is counted and passed over."""
        for _ in range(REQUESTS_KEPT):
            if (frames := receive(self.socket)) is None:
                return None
            reply = _read_reply(frames)
            if reply is not None:
                return reply
            self.refused += 1
        return None

    def messages(self, reply: Reply) -> Iterator[tuple[bytes, Message]]:
        """What a reply brings, with its topics."""
        for pair in reply.pairs:
            message = read(pair)
            if message is None:
                self.refused += 1
            else:
                yield pair[0], message

    def start_anew(self) -> None:
        """Forget what was asked and not answered: an engine that comes up later must not find it."""
        self.socket.close(linger=0)
        self._connect()


class Pages:
    """Messages that come in several replies, each asked for when it is wanted: for a loop, or `async for`."""

    def __init__(self, control: Control, op: str, fields: Facts) -> None:
        self._control = control
        self._op = op
        self._fields = fields

    def __iter__(self) -> Iterator[Message]:
        cursor: int | None = 0
        while cursor is not None:
            reply = self._control.exchange(self._op, {**self._fields, "after": cursor})
            yield from (message for _, message in self._control.messages(reply))
            cursor = next_cursor(reply, cursor)

    async def __aiter__(self) -> AsyncIterator[Message]:
        cursor: int | None = 0
        while cursor is not None:
            reply = await self._control.aexchange(self._op, {**self._fields, "after": cursor})
            for _, message in self._control.messages(reply):
                yield message
            cursor = next_cursor(reply, cursor)


def next_cursor(reply: Reply, cursor: int) -> int | None:
    """Where the next page begins; None behind the last. It only ever moves on, whatever the engine says."""
    return reply.rest if reply.rest is not None and reply.rest > cursor else None


def control_endpoint(control: str, publish: str) -> str | None:
    """Where to ask the engine that publishes there: `auto` is beside it, empty nowhere."""
    if control != "auto":
        return control or None
    return control_beside(default_endpoint() if publish == "auto" else publish)


def _patience_s(op: str, asked_s: float | None) -> float:
    return PATIENCE_S.get(op, ANSWER_S) if asked_s is None else asked_s


def _read_reply(frames: list[bytes]) -> Reply | None:
    head, *parts = frames
    if len(parts) % 2 or len(parts) > 2 * MOST_PAIRS or len(head) > MOST_BYTES:
        return None
    try:
        facts = msgspec.json.decode(head, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    number, ok = facts.get("id"), facts.get("ok")
    if type(number) not in (int, type(None)) or type(ok) is not bool:
        return None
    return Reply(number, ok, facts, [parts[at : at + 2] for at in range(0, len(parts), 2)])
