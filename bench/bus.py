"""What the bus alone costs: sending to receiving, joining late, and what one reads who was away."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import msgspec
import zmq

from clser.bench.reader import Received, read_received
from clser.bench.speaker import Say, is_final
from clser.bench.stats import Distribution, distribution
from clser.bench.table import number
from clser.clients.subscribe import Subscriber
from clser.engine import wire
from clser.engine.errors import FailedError
from clser.engine.records import Message, Result

IDLE_PER_S, LOAD_PER_S, FLOOD_PER_S = 20.0, 400.0, 4000.0
IDLE, LOAD, JOINS, FLOOD = 200, 4000, 200, 20_000
STREAMS = 32
FINAL_EVERY = 20
QUIET_S = 1.5
"""Nothing for so long: all has come, what was asked for too."""
WAIT_S = 2.0
LONGEST_S = 120.0


def measure(share: float = 1.0) -> dict[str, object]:
    """`share` of the usual numbers of messages."""
    with Speaker() as speaker:
        idle, load, joins, flood = (max(20, round(each * share)) for each in (IDLE, LOAD, JOINS, FLOOD))
        print("idle, then load", file=sys.stderr)
        speaker.say(Say("quiet", 1, 100.0))
        speaker.say(Say("idle", idle, IDLE_PER_S))
        speaker.say(Say("load", load, LOAD_PER_S, STREAMS))
        print("late joiners", file=sys.stderr)
        joined = join(speaker, joins)
        print("a stalled subscriber", file=sys.stderr)
        stale = stall(speaker, flood)
    received = first_arrivals(speaker.received)
    sent = {"idle": idle, "load": load, "flood": flood + STREAMS}
    got = Counter(entry.message.stream.partition("-")[0] for entry in received)
    return {
        "publish_to_receive_ms": transit(received, "load"),
        "publish_to_receive_idle_ms": transit(received, "idle"),
        "late_join_ms": distribution(joined, digits=3),
        **stale,
        "flood": flood,
        "missed_by_a_reader_that_keeps_up": {name: count - got[name] for name, count in sent.items()},
    }


def first_arrivals(received: list[Received]) -> list[Received]:
    """Without what was sent again, to everybody, because somebody joined late."""
    seen: set[tuple[str, int]] = set()
    first = []
    for entry in received:
        key = (entry.message.stream, entry.message.seq)
        if isinstance(entry.message, Result) and key not in seen:
            seen.add(key)
            first.append(entry)
    return first


def transit(received: list[Received], name: str) -> Distribution:
    return distribution(
        [
            (entry.at_us - entry.message.captured_unix_us) / 1000
            for entry in received
            if isinstance(entry.message, Result) and entry.message.stream.partition("-")[0] == name
        ],
        digits=3,
    )


def join(speaker: "Speaker", count: int) -> list[float]:
    """From connecting and subscribing to the first kept value, while the bus is busy."""
    waits: list[float] = []
    speaker.begin(Say("busy", round(LOAD_PER_S * 2 + count * 4), LOAD_PER_S, STREAMS))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    try:
        for _ in range(count):
            began_s = time.perf_counter()
            socket = context.socket(zmq.SUB)
            socket.subscribe(wire.topic("result", "quiet"))
            socket.connect(speaker.endpoint)
            if not socket.poll(round(WAIT_S * 1000)):
                raise FailedError(f"a late joiner got nothing within {WAIT_S} s")
            socket.recv_multipart()
            waits.append((time.perf_counter() - began_s) * 1000)
            socket.close(linger=0)
    finally:
        context.destroy(linger=0)
    speaker.finish()
    return waits


def stall(speaker: "Speaker", flood: int) -> dict[str, object]:
    """Four who subscribe and then do not read while `flood` messages go by: what do they read after it, and what is lost?"""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    plain = context.socket(zmq.SUB)
    plain.subscribe(wire.topic("result"))
    plain.connect(speaker.endpoint)
    ours = Subscriber(speaker.endpoint, kind="result")
    thorough = Subscriber(speaker.endpoint, kind="result", keep_latest=False)
    alone = Subscriber(speaker.endpoint, kind="result", keep_latest=False, control="")
    try:
        time.sleep(0.5)  # for the subscriptions to arrive
        speaker.say(order := Say("flood", flood, FLOOD_PER_S, STREAMS, FINAL_EVERY))
        began_s = time.perf_counter()
        first = _drain(ours)
        caught_up_s = time.perf_counter() - began_s - QUIET_S
        stale = {
            "stale_read": _stale(first, flood - STREAMS),
            "stale_read_without_asking": _stale(_drain(alone), flood - STREAMS),
            "stale_read_plain_socket": _stale(_drain_plain(plain), flood - STREAMS),
        }
        everything = _drain(thorough)
        speaker.say(
            Say("flood", STREAMS, LOAD_PER_S, STREAMS)
        )  # with these a subscriber sees what it missed at the end
        first += _drain(ours)
        everything += _drain(thorough)
        _drain(alone)
        return {
            **stale,
            **finals_of(first, order),
            "caught_up_s": caught_up_s,
            "overtaken": ours.overtaken,
            "recovered": ours.recovered,
            "missed": ours.missed,
            "recovered_of_everything": thorough.recovered,
            "missing_of_everything": flood - len(_numbers(everything) & set(range(flood))),
            "missed_without_asking": alone.missed,
        }
    finally:
        for close in (ours.close, thorough.close, alone.close, context.destroy):
            close()


def finals_of(messages: list[Message], order: Say) -> dict[str, object]:
    """Which of the finals that were sent have come, and whether any came twice."""
    sent = {at for at in range(order.count) if is_final(order, at)}
    came = Counter(message.utterance for message in messages if isinstance(message, Result) and message.final)
    return {
        "finals": len(sent),
        "finals_missing_after_replay": len(sent - came.keys()),
        "finals_doubled": sum(count - 1 for number, count in came.items() if number in sent),
    }


def _numbers(messages: list[Message]) -> set[int]:
    return {message.utterance for message in messages if isinstance(message, Result)}


def _stale(messages: list[Message], last: int) -> int:
    """Passing messages of the flood that are not the newest of their stream; a final is worth reading later too."""
    return sum(
        isinstance(message, Result)
        and message.stream.startswith("flood")
        and message.revision < last
        and not message.final
        for message in messages
    )


def _drain(subscriber: Subscriber) -> list[Message]:
    messages = []
    while (message := subscriber.receive(QUIET_S)) is not None:
        messages.append(message)
    return messages


def _drain_plain(socket: "zmq.Socket[bytes]") -> list[Message]:
    messages = []
    while socket.poll(round(QUIET_S * 1000)):
        messages.append(wire.decode(socket.recv_multipart()[1]))
    return messages


class Speaker:
    """The publisher's process and a reader's beside it; `received` is filled when both have ended."""

    def __enter__(self) -> Self:
        self._temporary = TemporaryDirectory(prefix="clser-bench-")
        folder = Path(self._temporary.name)
        self.endpoint = f"ipc://{folder}/out"
        self._file = folder / "received"
        self.received: list[Received] = []
        python = [sys.executable, "-m"]
        self._reader = subprocess.Popen([*python, "clser.bench.reader", self.endpoint, str(self._file), str(LONGEST_S)])
        self._speaker = subprocess.Popen(
            [*python, "clser.bench.speaker", self.endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self.finish()
            time.sleep(0.5)  # for the reader's subscription to arrive
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                assert self._speaker.stdin is not None
                self._speaker.stdin.close()
                self._speaker.wait(10)
                self._reader.terminate()
                self._reader.wait(10)
                self.received = read_received(self._file)
        finally:
            self._end()

    def say(self, order: Say) -> None:
        self.begin(order)
        self.finish()

    def begin(self, order: Say) -> None:
        assert self._speaker.stdin is not None
        self._speaker.stdin.write(msgspec.json.encode(order) + b"\n")
        self._speaker.stdin.flush()

    def finish(self) -> None:
        """Wait until what was begun has been said."""
        assert self._speaker.stdout is not None
        if not self._speaker.stdout.readline():
            raise FailedError("the publishing process ended; its own words are above")

    def _end(self) -> None:
        for process in (self._speaker, self._reader):
            if process.poll() is None:
                process.kill()
            process.wait()
        for pipe in (self._speaker.stdin, self._speaker.stdout):
            if pipe is not None:
                pipe.close()
        self._temporary.cleanup()


def table(line: dict[str, object]) -> list[str]:
    rows = [f"{'ms':<28}{'p50':>9}{'p95':>9}{'p99':>9}{'n':>7}"]
    for name in ("publish_to_receive_idle_ms", "publish_to_receive_ms", "late_join_ms"):
        each = line[name]
        assert isinstance(each, Distribution)
        numbers = "".join(f"{'-' if v is None else f'{v:.3f}':>9}" for v in (each.p50, each.p95, each.p99))
        rows.append(f"{name.removesuffix('_ms'):<28}{numbers}{each.n:>7}")
    rows.append("")
    for name in ("stale_read", "stale_read_without_asking", "stale_read_plain_socket", "recovered", "missed"):
        rows.append(f"{name:<28}{line[name]!s:>9}  of {line['flood']} messages")
    for name in ("finals_missing_after_replay", "finals_doubled"):
        rows.append(f"{name:<28}{line[name]!s:>9}  of {line['finals']} finals")
    rows.append(f"{'caught_up_s':<28}{number(line['caught_up_s']):>9}")
    rows.append(
        f"{'missing_of_everything':<28}{line['missing_of_everything']!s:>9}  where partial results are asked for too"
    )
    return [*rows, f"{'missed by a fast reader':<28}{line['missed_by_a_reader_that_keeps_up']}"]
