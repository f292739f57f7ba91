"""What an engine publishes, for another program: read it in a plain loop or with `async for`.

with Subscriber() as subscriber:
    for message in subscriber:
        ...
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import zmq

from clser.clients.control import Control, control_endpoint
from clser.clients.gaps import Gaps
from clser.clients.recovery import Recovery
from clser.clients.sockets import Closing, Context, Socket, changed, connect, keys_for, read, receive, wait
from clser.clients.waiting import MOST, Waiting
from clser.engine import wire
from clser.engine.errors import GivenError
from clser.engine.places import default_endpoint
from clser.engine.records import ENGINE, Message, Result

QUEUE = 50  # messages ZeroMQ keeps for a reader that does not keep up
BUFFER_BYTES = 16_384  # the kernel's: small, since what lies in it only gets older
BURST = 64  # messages in a row before others get their turn
SETTLED_S = 3.0  # after so long whoever joined has heard of every topic
WORTH_SAYING = 20  # so many overtaken ones at once are no accident


class Subscriber(Closing):
    """Messages in the order they were sent, each once. What is not ours is counted in `refused` and passed over.

    A jump in a topic's numbers shows that messages were lost on the way. They are asked for over the engine's control socket
    while reading goes on, and delivered as soon as they come: behind newer ones, but no final is left out or comes twice.
    """

    def __init__(
        self,
        endpoint: str = "auto",
        *,
        kind: str | Sequence[str] | None = None,
        stream: str | None = None,
        timeout_s: float | None = None,
        keep_latest: bool = True,
        with_engine: bool = False,
        replay_s: float = 0.0,
        control: str = "auto",
        keys: str | Path | None = None,
    ) -> None:
        """`kind` and `stream` choose (without them: everything, the continuous track too); `with_engine` adds the engine's
        own status. Iteration ends when nothing came for `timeout_s`. With `keep_latest`, partials and frames that newer
        ones of their topic have overtaken are left out, so that a slow reader is always up to date; finals never are.
        `replay_s` begins with so much of the past. `control` is where to ask for what was lost: `auto` (beside the endpoint,
        on this machine), an endpoint, or empty for nowhere. `keys` is a folder of CURVE keys, for tcp endpoints.
        """
        prefixes = _prefixes(kind, stream, with_engine)
        self.endpoint = default_endpoint() if endpoint == "auto" else endpoint
        self.timeout_s = timeout_s
        asking = control_endpoint(control, self.endpoint)
        if replay_s and asking is None:
            raise GivenError(
                f"no control socket is known for {endpoint}, and without one there is no past: give its endpoint"
            )
        self._refused = self._served = self._in_a_row = 0
        self._told = (0, 0, 0, 0, 0)
        self._began_s: float | None = None
        self._waiting = Waiting(keep_latest)
        self._gaps = Gaps()
        self._context: Context = zmq.Context(io_threads=1)
        try:
            self._socket = self._connect(prefixes, keys)
            self._control = Control(asking, keys, context=self._context) if asking else None
        except BaseException:
            self.close()
            raise
        self._recovery = Recovery(self._control, self._gaps, prefixes, lasting=keep_latest, replay_s=replay_s)

    def _connect(self, prefixes: list[bytes], keys: str | Path | None) -> Socket:
        options: dict[int, int] = {zmq.RCVHWM: QUEUE, zmq.RCVBUF: BUFFER_BYTES}
        socket = connect(self._context, zmq.SUB, self.endpoint, keys_for(self.endpoint, keys), options)
        for prefix in prefixes:
            socket.setsockopt(zmq.SUBSCRIBE, prefix)
        return socket

    def close(self) -> None:
        self._context.destroy(linger=0)

    # --- reading --------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Message]:
        while (message := self.receive(self.timeout_s)) is not None:
            yield message

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message, or None if none came in that time (None waits for ever, 0 not at all)."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while (message := self._next()) is None:
            left_s = None if until_s is None else until_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return None
            wait(self._sources(), self._patience_s(left_s))
        return message

    async def __aiter__(self) -> AsyncIterator[Message]:
        while (message := await self.areceive(self.timeout_s)) is not None:
            yield message

    async def areceive(self, timeout_s: float | None = None) -> Message | None:
        """`receive` for an event loop."""
        self._served += 1
        if self._served % BURST == 0:
            await asyncio.sleep(0)
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while (message := self._next()) is None:
            left_s = None if until_s is None else until_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return None
            await changed(self._sources(), self._patience_s(left_s))
        return message

    def _sources(self) -> list[Socket]:
        live = [] if self._recovery.first else [self._socket]
        return [*live, self._control.socket] if self._control is not None and self._recovery.asking else live

    def _patience_s(self, left_s: float | None) -> float | None:
        due_s = 0.0 if self._in_a_row else self._recovery.due_s  # with some left in the socket, it tells of no change
        return left_s if due_s is None else due_s if left_s is None else min(left_s, due_s)

    # --- what went wrong ------------------------------------------------------------------------------------------

    @property
    def missed(self) -> int:
        """Messages that were sent, did not get here, and cannot be had any more."""
        return self._gaps.missed

    @property
    def recovered(self) -> int:
        """Messages that did not get here by themselves and came when they were asked for."""
        return self._gaps.recovered

    @property
    def overtaken(self) -> int:
        """Messages left out because a newer one was there already."""
        return self._waiting.overtaken + self._gaps.passed

    @property
    def restarts(self) -> int:
        """How often another engine took over."""
        return self._gaps.restarts

    @property
    def refused(self) -> int:
        """Messages that are none of ours."""
        return self._refused + self._recovery.refused + (self._control.refused if self._control is not None else 0)

    def trouble(self) -> str:
        """What went wrong since the last call, in a line for people; empty if nothing did."""
        now = (self.overtaken, self.recovered, self.missed, self.restarts, self._recovery.unanswered)
        overtaken, recovered, missed, restarts, unanswered = (n - m for n, m in zip(now, self._told, strict=True))
        self._told = now
        said = ["the engine was restarted"] if restarts > 0 else []
        if recovered > 0 or missed > 0 or overtaken >= WORTH_SAYING:
            named = (
                (overtaken, f"partial{'s' * (overtaken != 1)} overtaken"),
                (recovered, f"message{'s' * (recovered != 1)} recovered"),
                (missed, "lost"),
            )
            said.append("fell behind: " + ", ".join(f"{count} {words}" for count, words in named if count > 0))
        if unanswered > 0 and self._control is not None:
            said.append(f"nobody answers at {self._control.endpoint}")
        return "; ".join(said)

    # --- what came ------------------------------------------------------------------------------------------------

    def _next(self) -> Message | None:
        """A message that is there already. Reading takes in all that has come, since what lies in the socket only gets older."""
        again = True
        while again:
            past = self._recovery.first
            if not past:
                self._take_live()
            while not self._waiting.full and (message := self._recovery.take()) is not None:
                self._waiting.put(message)
            again = past and not self._recovery.first
        return self._waiting.pop()

    def _take_live(self) -> None:
        for _ in range(MOST):
            if self._waiting.full:
                return
            frames = receive(self._socket)
            if frames is None:
                if self._in_a_row >= QUEUE:
                    self._recovery.look()  # the queue was full: what came last may be lost, and no jump shows it
                self._in_a_row = 0
                return
            self._in_a_row += 1
            self._enter(frames)

    def _enter(self, frames: list[bytes]) -> None:
        message = read(frames)
        if message is None:
            self._refused += 1
            return
        now_s = time.monotonic()
        self._began_s = self._began_s or now_s
        self._gaps.settled = self._gaps.settled or now_s > self._began_s + SETTLED_S
        final = isinstance(message, Result) and message.final
        if self._gaps.live(frames[0], message.epoch, message.seq, final):
            self._waiting.put(message)


def _prefixes(kind: str | Sequence[str] | None, stream: str | None, with_engine: bool) -> list[bytes]:
    kinds: Sequence[str | None] = [kind] if kind is None or isinstance(kind, str) else kind
    found = {prefix for each in kinds for prefix in wire.prefixes(each, stream)}
    return sorted(found | ({wire.topic("status", ENGINE)} if with_engine else set()))
