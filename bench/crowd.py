"""A load generator that does not know when to stop: streams come one after another, and whoever is refused asks again.

After a while most of them leave at once. Paced like `load`, whose ledger it writes too: a stream's sample 0 exists from
the moment at which the engine has let it in. Started as `python -m clser.bench.crowd ORDER` with an `Order` in JSON.
"""

import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq
from msgspec import Struct
from numpy.typing import NDArray

from clser.bench.load import CLOSE_S, LEAST_SLEEP_NS, LOOK, PACKET_NS, Ledger, Microphone, name_of, obey
from clser.bench.scene import PACKET
from clser.engine.errors import FailedError

AGAIN = 50
"""Rounds after which somebody who was refused asks again."""


class Crush(Struct, frozen=True):
    per_s: float
    """So many come each second."""
    seconds: float
    """Then all but `left` of those that are in leave, and nobody asks any more."""
    left: int
    after_s: float


class Order(Struct, frozen=True):
    endpoint: str
    scene: str
    """An .npy file of s16 samples, a whole number of packets."""
    phases: tuple[int, ...]
    """Where in the scene each stream begins; one for each."""
    crush: Crush
    ledger: str
    """The .npz file to write."""


class Crowd(Struct, frozen=True):
    ledger: Ledger
    """`start_us` is NaN for streams that were never let in."""
    turned_away: NDArray[np.int64]
    """How often each stream was refused."""
    begin_us: float
    fall_us: float
    reason: str
    """Of the last refusal, in the engine's words."""


def read_crowd(path: Path) -> Crowd:
    with np.load(path) as file:
        names = Ledger.__struct_fields__
        ledger = Ledger(**{name: file[name] if file[name].ndim else file[name].item() for name in names})
        return Crowd(ledger, file["turned_away"], float(file["begin_us"]), float(file["fall_us"]), str(file["reason"]))


class Stranger:
    """One stream, outside or inside."""

    def __init__(self, microphone: Microphone, phase: int, shift_ns: int, sent_us: NDArray[np.int64]) -> None:
        self.microphone = microphone
        self.phase = phase
        self.shift_ns = shift_ns
        self.row = memoryview(sent_us.data)
        self.ask_at: int | None = None
        """Asks in this round; None while it waits for the answer, or has it."""
        self.first: int | None = None
        """The round of its first packet, once it was let in."""
        self.left = False
        self.turned_away = 0

    def answer(self, number: int) -> str:
        """See what the engine says in this round; the reason, if that was no."""
        reason = ""
        for reply in self.microphone.replies():
            if reply["op"] == "opened":
                self.first = number + 1
            elif reply["op"] == "refused" and self.first is None:
                self.turned_away += 1
                self.ask_at = number + AGAIN
                reason = str(reply.get("reason", ""))
            elif reply["op"] == "refused":
                self.microphone.refused += 1
        return reason


class Door:
    """Who is outside, who is inside, and what they do in each round of 20 ms."""

    def __init__(self, strangers: list[Stranger], crush: Crush) -> None:
        self._left = crush.left
        self.outside = strangers
        for at, stranger in enumerate(strangers):
            stranger.ask_at = round(at / crush.per_s * 1e9 / PACKET_NS)
        self.inside: list[Stranger] = []
        self.reason = ""

    def look(self, number: int) -> None:
        """After the packets of a round."""
        for stranger in self.outside:
            if stranger.ask_at is not None and stranger.ask_at <= number:
                stranger.microphone.say("open")
                stranger.ask_at = None
            elif stranger.ask_at is None:
                self.reason = stranger.answer(number) or self.reason
        came = [stranger for stranger in self.outside if stranger.first is not None]
        if came:
            self.inside = sorted((*self.inside, *came), key=lambda stranger: stranger.shift_ns)
            self.outside = [stranger for stranger in self.outside if stranger.first is None]
        if number % LOOK == 0:
            for stranger in self.inside:
                stranger.answer(number)

    def fall(self) -> None:
        """Those who came last leave first."""
        stay = sorted(self.inside, key=lambda stranger: stranger.first or 0)[: self._left]
        for stranger in self.inside:
            if stranger not in stay:
                stranger.left = True
                stranger.microphone.say("close")
        self.inside = [stranger for stranger in self.inside if not stranger.left]
        self.outside = []


def play(door: Door, sound: list[bytes], crush: Crush) -> tuple[int, int, int]:
    """Send until the end; packets that a full socket did not take, and when (unix ns) it began and when they left."""
    begin_ns, unix_ns = time.monotonic_ns() + 100_000_000, time.time_ns() - time.monotonic_ns()
    fall = round(crush.seconds * 1e9 / PACKET_NS)
    rounds = round((crush.seconds + crush.after_s) * 1e9 / PACKET_NS)
    blocked, count, parent = 0, len(sound), os.getppid()
    fall_ns = 0
    for number in range(rounds):
        if number % LOOK == 0 and os.getppid() != parent:
            raise FailedError("whoever started the load generator has gone")
        round_ns = begin_ns + (number + 1) * PACKET_NS
        for stranger in door.inside:
            assert stranger.first is not None
            packet = number - stranger.first
            if packet < 0:
                continue
            due_ns = round_ns + stranger.shift_ns
            _sleep_until(due_ns)
            now_us = time.time_ns() // 1000
            if not stranger.microphone.send(
                packet * PACKET, (due_ns + unix_ns) // 1000, sound[(stranger.phase + packet) % count]
            ):
                blocked += 1
                continue
            stranger.row[packet] = now_us
        if number == fall:
            door.fall()
            fall_ns = time.time_ns()
        door.look(number)
        _sleep_until(round_ns)  # nobody may be inside
    return blocked, begin_ns + unix_ns, fall_ns


def _sleep_until(due_ns: int) -> None:
    wait_ns = due_ns - time.monotonic_ns()
    if wait_ns > 0:
        time.sleep(max(wait_ns, LEAST_SLEEP_NS) / 1e9)


def run(order: Order) -> Crowd:
    scene, crush = np.load(order.scene), order.crush
    sound = [part.tobytes() for part in scene.reshape(-1, PACKET)]
    streams, rounds = len(order.phases), round((crush.seconds + crush.after_s) * 1e9 / PACKET_NS)
    sent_us = np.zeros((streams, rounds), np.int64)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, 4096)
    try:
        strangers = [
            Stranger(Microphone(context, order.endpoint, name_of(at)), phase, at * PACKET_NS // streams, sent_us[at])
            for at, phase in enumerate(order.phases)
        ]
        gc.collect()
        gc.disable()
        cpu_s, wall_s = time.process_time(), time.monotonic()
        door = Door(list(strangers), crush)
        blocked, begin_ns, fall_ns = play(door, sound, crush)
        cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
        for stranger in door.inside:
            stranger.microphone.say("close")
        until_s = time.monotonic() + CLOSE_S
        came = [stranger for stranger in strangers if stranger.first is not None]
        closed = sum(stranger.microphone.wait_for("closed", until_s) for stranger in came)
    finally:
        context.destroy(linger=0)
    ledger = Ledger(_starts_us(strangers, begin_ns), sent_us, blocked, cpu_s, wall_s, closed, _refused(strangers))
    turned_away = np.array([stranger.turned_away for stranger in strangers], np.int64)
    return Crowd(ledger, turned_away, begin_ns / 1000, fall_ns / 1000, door.reason)


def _starts_us(strangers: list[Stranger], begin_ns: int) -> NDArray[np.float64]:
    firsts = np.array([np.nan if each.first is None else each.first for each in strangers], np.float64)
    starts_us: NDArray[np.float64] = (
        begin_ns + firsts * PACKET_NS + np.array([each.shift_ns for each in strangers])
    ) / 1000
    return starts_us


def _refused(strangers: list[Stranger]) -> int:
    """Refusals of those who were in already."""
    return sum(stranger.microphone.refused for stranger in strangers)


def _arrays(crowd: Crowd) -> dict[str, Any]:
    fields = msgspec.structs.asdict(crowd)
    return {**msgspec.structs.asdict(fields.pop("ledger")), **fields}


if __name__ == "__main__":
    sys.exit(obey(Order, lambda order: _arrays(run(order))))
