"""The form that \\psi reads: what its MessagePackFormat and NetMQSource insist on."""

from pathlib import Path
from typing import Any

import msgspec
import zmq
import zmq.asyncio
from fakes import run

from clser.engine.clock import RealClock
from clser.engine.doors import Doors
from clser.engine.psi import UNIX_EPOCH_TICKS, Psi
from clser.engine.publish import Bus, BusConfig
from clser.engine.records import Result, Speech, Status
from examples import EXAMPLES

RESULT, SPEECH = EXAMPLES["result"], EXAMPLES["speech"]
assert isinstance(RESULT, Result)
assert isinstance(SPEECH, Speech)


def nulls(value: Any) -> int:
    if isinstance(value, dict):
        return sum(nulls(inner) for inner in value.values())
    return value is None


def test_the_unix_epoch_in_ticks_is_the_one_of_dotnet() -> None:
    days = 1969 * 365 + 1969 // 4 - 1969 // 100 + 1969 // 400  # from the first of January of the year 1 to that of 1970
    assert days * 86_400 * 10_000_000 == UNIX_EPOCH_TICKS


def test_message_and_time_in_ticks_without_nulls() -> None:
    psi = Psi(10)
    sent = msgspec.structs.replace(RESULT, words=None, text=None, captured_unix_us=1_700_000_000_123_456)
    read = msgspec.msgpack.decode(psi.body(b"t", sent, 0))
    assert set(read) == {"message", "originatingTime"}
    assert read["originatingTime"] == UNIX_EPOCH_TICKS + 17_000_000_001_234_560
    assert read["message"]["kind"] == "result"
    assert read["message"]["emotion"]["probabilities"] == sent.emotion.probabilities
    assert nulls(read) == 0
    assert "words" not in read["message"]


def test_each_streams_times_grow_though_answers_are_about_the_same_moment() -> None:
    psi = Psi(10)
    times = [
        msgspec.msgpack.decode(psi.body(topic, RESULT, 0))["originatingTime"] for topic in (b"a", b"a", b"b", b"a")
    ]
    assert times == [times[0], times[0] + 1, times[0], times[0] + 2]
    status = Status(unix_us=5, state="ready", event="x")
    assert msgspec.msgpack.decode(psi.body(b"s", status, 9))["originatingTime"] == UNIX_EPOCH_TICKS + 50
    assert msgspec.msgpack.decode(psi.body(b"g", SPEECH, 9))["originatingTime"] == UNIX_EPOCH_TICKS + 90


def test_on_the_bus_and_never_sent_twice(tmp_path: Path) -> None:
    async def main() -> None:
        doors = Doors()
        doors.open()
        bus = Bus(BusConfig(publish=f"ipc://{tmp_path / 'bus'}", wire="psi"), RealClock())
        bus.open(doors)
        context = zmq.asyncio.Context()
        try:
            bus.publish(RESULT)
            socket = context.socket(zmq.SUB)
            socket.subscribe(b"clser/1/result/")
            socket.connect(bus.endpoint or "")
            while not bus._inbox or not await socket.poll(5):
                bus.publish(RESULT)  # until the subscription has arrived
            topic, body = await socket.recv_multipart()
            assert topic.startswith(b"clser/1/result/")
            first = msgspec.msgpack.decode(body)
            assert first["message"]["seq"] > 1  # what was sent before it joined did not come
        finally:
            context.destroy(linger=0)
            bus.close()
            doors.close()

    run(main())
