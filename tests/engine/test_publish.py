"""The bus over real sockets on this machine."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio
from fakes import run

from clser.engine import publish, wire
from clser.engine.clock import RealClock
from clser.engine.doors import Doors
from clser.engine.errors import GivenError, MissingError
from clser.engine.publish import Bus, BusConfig
from clser.engine.records import Frame, Gap, Message, Result, Speech, Status
from examples import EXAMPLES


def result(stage: Any = "final", utterance: int = 1, stream: str = "kitchen") -> Result:
    example = EXAMPLES["result"]
    assert isinstance(example, Result)
    return msgspec.structs.replace(example, stream=stream, stage=stage, utterance=utterance)


def speech(stream: str = "kitchen") -> Speech:
    return Speech(stream=stream, utterance=1, event="started", sample=0, at_s=0.0)


def frame(stream: str = "kitchen") -> Frame:
    example = EXAMPLES["frame"]
    assert isinstance(example, Frame)
    return msgspec.structs.replace(example, stream=stream)


class Subscriber:
    def __init__(self, endpoint: str, *topics: bytes, kind: int = zmq.SUB) -> None:
        self._context = zmq.asyncio.Context()
        self.socket = self._context.socket(kind)
        for topic in topics:
            self.socket.subscribe(topic)
        self.socket.connect(endpoint)

    async def __aenter__(self) -> "Subscriber":
        return self

    async def __aexit__(self, *error: object) -> None:
        self._context.destroy(linger=0)

    async def next(self) -> tuple[bytes, Message]:
        topic, body = await self.socket.recv_multipart()
        return topic, wire.decode(body)


class Open:
    """A bus in use: `async with Open(tmp_path) as bus`."""

    def __init__(self, where: Path | str, **settings: Any) -> None:
        endpoint = where if isinstance(where, str) else f"ipc://{where / 'bus'}"
        self.doors = Doors(settings.get("keys", ""))
        self.bus = Bus(BusConfig(publish=endpoint, **settings), RealClock())

    async def __aenter__(self) -> Bus:
        self.doors.open()
        try:
            self.bus.open(self.doors)
        except BaseException:
            self.doors.close()
            raise
        return self.bus

    async def __aexit__(self, *error: object) -> None:
        self.bus.close()
        self.doors.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what it waits for happens inside the bus, which has no event for it
        await asyncio.sleep(0.001)


async def joined(bus: Bus, subscriber: Subscriber) -> None:
    """Return once the subscriber certainly hears what is published."""
    bus.publish(Status(unix_us=0, state="ready", event="hello"))
    while (await subscriber.next())[1].stream != "_engine":
        pass


HELLO = b"clser/1/status/_engine/"


def test_a_message_goes_out_under_its_topic_as_it_was_published(tmp_path: Path) -> None:
    async def main() -> None:
        async with Open(tmp_path) as bus, Subscriber(bus.endpoint or "", b"") as subscriber:
            await joined(bus, subscriber)
            for message in (result(), speech(), frame("robot"), Gap(stream="a", from_sample=1, count=2, reason="lost")):
                sent = bus.publish(message)
                assert await subscriber.next() == (wire.topic(wire.kind_of(message), message.stream), sent)
                assert sent.epoch == bus.epoch > 1_600_000_000_000

    run(main())


def test_seq_counts_per_topic(tmp_path: Path) -> None:
    async def main() -> None:
        async with Open(tmp_path) as bus:
            sent = [bus.publish(message) for message in (speech("a"), speech("b"), speech("a"), result(stream="a"))]
            assert [message.seq for message in sent] == [1, 1, 2, 1]

    run(main())


def test_the_body_is_json_unless_configured(tmp_path: Path) -> None:
    async def main() -> None:
        for form, read in (("json", json.loads), ("msgpack", msgspec.msgpack.decode)):
            async with Open(tmp_path, wire=form) as bus, Subscriber(bus.endpoint or "", b"") as subscriber:
                bus.publish(speech())
                _, body = await subscriber.socket.recv_multipart()
                assert read(body)["kind"] == "speech"

    run(main())


def test_who_joins_late_gets_the_last_final_and_the_last_of_any_stage(tmp_path: Path) -> None:
    async def main() -> None:
        async with Open(tmp_path) as bus:
            for stage, number in (("final", 1), ("partial", 2), ("final", 2), ("partial", 3), ("tentative", 3)):
                bus.publish(result(stage, number))
            bus.publish(result("final", 9, "kitchen2"))
            bus.publish(speech())
            async with Subscriber(bus.endpoint or "", wire.topic("result", "kitchen")) as late:
                got = [(await late.next())[1] for _ in range(2)]
                assert [(m.stage, m.utterance) for m in got if isinstance(m, Result)] == [
                    ("final", 2),
                    ("tentative", 3),
                ]
                bus.publish(result("final", 3))
                _, news = await late.next()
                assert isinstance(news, Result)
                assert (news.stage, news.utterance, news.seq) == ("final", 3, 6), "and nothing else came before"

    run(main())


def test_a_last_final_that_is_the_last_of_all_comes_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with Open(tmp_path) as bus:
            bus.publish(result())
            async with Subscriber(bus.endpoint or "", wire.topic("result")) as late:
                await late.next()
                bus.publish(result("partial", 2))
                assert (await late.next())[1].seq == 2

    run(main())


def test_everybody_who_joins_gets_the_kept_ones(tmp_path: Path) -> None:
    async def main() -> None:
        async with Open(tmp_path) as bus:
            bus.publish(speech())
            for _ in range(3):
                async with Subscriber(bus.endpoint or "", wire.topic("speech")) as late:
                    assert (await late.next())[1].seq == 1

    run(main())


@pytest.mark.parametrize("prefix", [wire.topic("frame"), wire.topic("frame", "kitchen"), b"clser/1/", b""])
def test_frames_are_wanted_while_somebody_subscribes_to_them(tmp_path: Path, prefix: bytes) -> None:
    async def main() -> None:
        async with Open(tmp_path) as bus:
            assert not bus.frames_wanted
            async with Subscriber(bus.endpoint or "", prefix) as one, Subscriber(bus.endpoint or "", prefix):
                await until(lambda: bus._frame_subscriptions == 2)
                assert bus.frames_wanted
                bus.publish(frame())
                assert isinstance((await one.next())[1], Frame)
                one.socket.unsubscribe(prefix)
                await until(lambda: bus._frame_subscriptions == 1)
                assert bus.frames_wanted
            await until(lambda: not bus.frames_wanted)  # the other one simply went away

    run(main())


def test_frames_are_not_wanted_by_those_who_want_something_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with Open(tmp_path) as bus, Subscriber(bus.endpoint or "", wire.topic("result"), HELLO) as subscriber:
            await joined(bus, subscriber)
            assert not bus.frames_wanted

    run(main())


def test_taps_get_frames_only_if_they_ask_and_hear_of_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        plain: list[Message] = []
        full: list[Message] = []
        ended: list[str] = []
        async with Open(tmp_path) as bus:
            bus.tap(plain.append, lambda: ended.append("plain"), False)
            assert not bus.frames_wanted
            stop = bus.tap(full.append, lambda: ended.append("full"), True)
            assert bus.frames_wanted
            sent = [bus.publish(speech()), bus.publish(frame())]
            stop()
            stop()
            assert not bus.frames_wanted
            bus.publish(speech())
            assert full == sent
            assert [m.seq for m in plain] == [1, 2]
            assert not any(isinstance(m, Frame) for m in plain)
        assert ended == ["plain"]

    run(main())


def test_without_an_endpoint_messages_go_to_taps_only() -> None:
    async def main() -> None:
        async with Open("") as bus:
            got: list[Message] = []
            bus.tap(got.append, lambda: None, False)
            assert bus.publish(speech()).seq == 1
            assert bus.endpoint is None
            assert len(got) == 1

    run(main())


def test_a_port_in_use_is_missing_and_says_what_to_do() -> None:
    async def main() -> None:
        async with Open("tcp://127.0.0.1:*") as bus:
            second = Open(bus.endpoint or "")
            with pytest.raises(MissingError, match=f"cannot publish on {bus.endpoint}.*--bind"):
                await second.__aenter__()
            assert second.bus.endpoint is None
        async with second:
            pass  # free again

    run(main())


def test_a_second_engine_on_the_same_ipc_socket_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with Open(tmp_path) as bus, Subscriber(bus.endpoint or "", b"") as subscriber:
            await joined(bus, subscriber)
            with pytest.raises(MissingError, match="another engine does"):
                await Open(tmp_path).__aenter__()
            sent = bus.publish(speech())
            assert (await subscriber.next())[1] == sent
        async with Open(tmp_path):
            pass  # free again

    run(main())


def test_a_place_that_cannot_be_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="No such file"):
        run(Open(tmp_path / "absent").__aenter__())


@pytest.mark.parametrize(
    "endpoint", ["tcp://0.0.0.0:5556", "tcp://*:5556", "tcp://192.168.1.5:5556", "udp://127.0.0.1:1"]
)
def test_nothing_is_published_to_other_machines_without_keys(endpoint: str) -> None:
    with pytest.raises(GivenError, match="only this machine"):
        run(Open(endpoint).__aenter__())


def test_whatever_a_subscriber_sends_harms_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Open(tmp_path) as bus,
            Subscriber(bus.endpoint or "", b"") as honest,
            Subscriber(bus.endpoint or "", kind=zmq.XSUB) as rude,
        ):
            await joined(bus, honest)
            for body in (
                b"",
                b"\x00",
                b"\x01\xff\xfe",
                b"\x02hello",
                b"x" * 100,
                b"y" * 100_000,
                b"\x00never-subscribed",
            ):
                await rude.socket.send(body)
            await rude.socket.send_multipart([b"\x01", b"\x01clser/1/frame/", b""])
            await rude.socket.send(b"\x01" + wire.topic("speech", "sign"))  # the last: when it has come, all have
            bus.publish(speech("sign"))
            while (await rude.socket.recv_multipart())[0] != wire.topic("speech", "sign"):
                pass
            sent = bus.publish(result())
            while (await honest.next())[1] != sent:
                pass

    run(main())


def test_a_topic_that_was_forgotten_goes_on_above_its_old_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "KEPT", 3)

    async def main() -> None:
        async with Open(tmp_path) as bus:
            assert [bus.publish(speech("a")).seq for _ in range(5)] == [1, 2, 3, 4, 5]
            for number in range(10):
                bus.publish(speech(f"s{number}"))
            assert bus.publish(speech("a")).seq > 5
            assert len(bus._last) <= 4

    run(main())


def test_a_subscriber_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Open(tmp_path) as bus,
            Subscriber(bus.endpoint or "", b"") as stalled,
            Subscriber(bus.endpoint or "", b"") as reader,
        ):
            await joined(bus, stalled)
            await joined(bus, reader)
            for _ in range(3000):
                sent = bus.publish(speech())
                while (await reader.next())[1] != sent:
                    pass

    run(main())
