"""Subscribers and a real bus with its control socket: whatever happens on the way, each final arrives exactly once."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import run
from samples import result

from clser.clients.control import Control as Asking
from clser.clients.subscribe import Subscriber
from clser.engine.clock import RealClock
from clser.engine.control import Control
from clser.engine.doors import Doors
from clser.engine.errors import GivenError, MissingError
from clser.engine.keys import make_keys
from clser.engine.places import control_beside
from clser.engine.publish import Bus, BusConfig
from clser.engine.records import Message, Result

Known = tuple[int, str, int]


class NoEngine:
    """Behind the control socket of these tests."""

    def ready(self) -> dict[str, Any]:
        return {"ready": True}

    def describe(self) -> dict[str, Any]:
        return {}

    def reload(self, overrides: tuple[str, ...]) -> dict[str, Any]:
        raise GivenError(f"nothing to reload: {overrides}")

    def mute(self, stream: str, muted: bool) -> None:
        raise GivenError(f"there is no stream {stream!r} to {'mute' if muted else 'unmute'}")

    def reset_speaker(self, stream: str, speaker: str | None) -> None:
        raise GivenError(f"there is no stream {stream!r} for {speaker}")


@asynccontextmanager
async def running(endpoint: str, control: str = "auto", keys: str = "", **settings: Any) -> AsyncIterator[Bus]:
    """A bus that can be asked, like an engine's."""
    doors = Doors(keys)
    bus = Bus(BusConfig(publish=endpoint, keys=keys, **settings), RealClock())
    asked = Control(NoEngine(), bus)
    doors.open()
    try:
        bus.open(doors)
        assert bus.endpoint is not None
        place = control_beside(bus.endpoint) if control == "auto" else control
        if place:
            asked.open(place, doors)
        yield bus
    finally:
        asked.close()
        bus.close()
        doors.close()


async def joined(bus: Bus, *subscribers: Subscriber) -> None:
    """Return when they hear what is published."""
    for number, subscriber in enumerate(subscribers):
        while True:
            bus.publish(result(f"hello{number}", stage="partial"))
            message = await subscriber.areceive(0.05)
            if message is not None:
                break


def known(message: Message) -> Known:
    return message.epoch, message.stream, message.seq


def is_final(message: Message) -> bool:
    return isinstance(message, Result) and message.final


async def talk(bus: Bus, streams: int, rounds: int, pause_s: float = 0.0) -> list[Message]:
    """Every stream says three partials and a final, over and over, and then nothing more."""
    sent = []
    for turn in range(rounds):
        for stage in ("partial", "partial", "partial", "final"):
            for stream in range(streams):
                sent.append(bus.publish(result(f"s{stream}", stage=stage, utterance=turn + 1)))  # type: ignore[arg-type]
            await asyncio.sleep(pause_s)
    return sent


async def read(subscriber: Subscriber, into: list[Message], wanted: set[Known]) -> None:
    """Read on until all that is wanted has come."""
    missing = wanted - {known(message) for message in into}
    while missing:
        message = await subscriber.areceive(10)
        assert message is not None, f"{len(missing)} of {len(wanted)} never came"
        into.append(message)
        missing.discard(known(message))


def once(messages: list[Message], finals: set[Known]) -> None:
    counts = Counter(known(message) for message in messages)
    assert set(counts.values()) == {1}
    assert finals <= set(counts)


def test_a_reader_that_was_away_gets_every_final_once_and_the_one_beside_it_is_not_slowed(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(f"ipc://{tmp_path}/bus") as bus:
            with (
                Subscriber(bus.endpoint or "", kind="result") as slow,
                Subscriber(bus.endpoint or "", kind="result", keep_latest=False) as every,
                Subscriber(bus.endpoint or "", kind="result") as fast,
            ):
                await joined(bus, slow, every, fast)
                heard: list[Message] = []
                talking = asyncio.create_task(talk(bus, 16, 40, pause_s=0.002))
                while not talking.done():
                    message = await fast.areceive(0.01)
                    heard += [message] if message is not None else []
                sent = talking.result()
                finals = {known(message) for message in sent if is_final(message)}
                await read(fast, heard, finals)
                once(heard, finals)
                for reader, wanted in ((slow, finals), (every, {known(message) for message in sent})):
                    late: list[Message] = []
                    await read(reader, late, wanted)
                    once(late, wanted)
                    assert reader.missed == 0
                    assert reader.recovered > 100
                assert slow.overtaken > 100
                assert slow.trouble().startswith("fell behind: ")
                assert fast.missed == 0

    run(main())


def test_where_nothing_is_kept_it_says_how_much_is_lost(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(f"ipc://{tmp_path}/bus", replay_mb=0.0) as bus:
            with Subscriber(bus.endpoint or "", kind="result", keep_latest=False) as slow:
                await joined(bus, slow)
                sent = await talk(bus, 4, 60)
                heard = []
                while (message := await slow.areceive(1.5)) is not None:
                    heard.append(message)
                heard = [message for message in heard if message.stream.startswith("s")]
                assert len(heard) + slow.missed == len(sent)
                assert slow.missed > 100
                assert "lost" in slow.trouble()

    run(main())


def test_an_engine_that_is_started_again(tmp_path: Path) -> None:
    async def main() -> None:
        endpoint = f"ipc://{tmp_path}/bus"
        heard: list[Message] = []
        finals: set[Known] = set()
        with Subscriber(endpoint, kind="result") as subscriber:
            for turn in range(3):
                async with running(endpoint) as bus:
                    if turn == 0:
                        await joined(bus, subscriber)
                    sent = await talk(bus, 3, 10)  # all of it before the subscriber is back
                    finals |= {known(message) for message in sent if is_final(message)}
                    await read(subscriber, heard, finals)
            once(heard, finals)
            assert (subscriber.restarts, subscriber.missed) == (2, 0)
            assert "the engine was restarted" in subscriber.trouble()

    run(main())


def test_beginning_with_the_past(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(f"ipc://{tmp_path}/bus") as bus:
            before = await talk(bus, 5, 70)
            wanted = [known(message) for message in before if is_final(message)]
            with Subscriber(bus.endpoint or "", kind="result", replay_s=30.0) as subscriber:
                talking = asyncio.create_task(talk(bus, 5, 10, pause_s=0.001))
                heard: list[Message] = []
                await read(subscriber, heard, set(wanted))
                after = await talking
                await read(subscriber, heard, {known(message) for message in after if is_final(message)})
            assert [known(message) for message in heard][: len(wanted)] == wanted, "the past first, in order"
            once(heard, set(wanted))
            assert subscriber.missed == 0

    run(main())


def test_the_right_keys_and_wrong_ones(tmp_path: Path) -> None:
    async def main() -> None:
        ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
        make_keys(ours)
        make_keys(theirs)
        (tmp_path / "theirs" / "engine.key").write_text((tmp_path / "ours" / "public.key").read_text())
        async with running("tcp://127.0.0.1:*", control=f"ipc://{tmp_path}/control", keys=ours) as bus:
            arguments: dict[str, Any] = {"kind": "result", "control": f"ipc://{tmp_path}/control"}
            with (
                Subscriber(bus.endpoint or "", keys=ours, **arguments) as friend,
                Subscriber(bus.endpoint or "", keys=theirs, **arguments) as stranger,
                Subscriber(bus.endpoint or "", **arguments) as naked,
            ):
                await joined(bus, friend)
                sent = await talk(bus, 2, 2)
                heard: list[Message] = []
                await read(friend, heard, {known(message) for message in sent if is_final(message)})
                assert await stranger.areceive(0.3) is None
                assert await naked.areceive(0.1) is None

    run(main())


def test_what_was_lost_comes_back_over_tcp_with_keys(tmp_path: Path) -> None:
    async def main() -> None:
        keys = str(tmp_path / "keys")
        make_keys(keys)
        place = f"tcp://127.0.0.1:{free_port()}"
        async with running("tcp://127.0.0.1:*", control=place, keys=keys) as bus:
            with Subscriber(bus.endpoint or "", kind="result", control=place, keys=keys) as slow:
                await joined(bus, slow)
                sent = await talk(bus, 8, 40)
                finals = {known(message) for message in sent if is_final(message)}
                heard: list[Message] = []
                await read(slow, heard, finals)
                once(heard, finals)
                assert slow.missed == 0
            with Asking(place) as stranger, pytest.raises(MissingError):
                await stranger.aask("live", timeout_s=0.2)

    run(main())


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_what_a_real_engine_says(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(f"ipc://{tmp_path}/bus") as bus:
            sent = await talk(bus, 3, 100)
            with Asking(publish=bus.endpoint or "") as control:
                assert (await control.aask("live"))["epoch"] == bus.epoch
                with pytest.raises(GivenError, match="the engine refuses mute: there is no stream 'x'"):
                    await control.aask("mute", stream="x")
                with pytest.raises(GivenError, match="op is one of"):
                    await control.aask("dance")
                assert [message async for message in control.replay(seconds=30)] == sent
                finals = [message for message in sent if is_final(message)]
                assert [message async for message in control.replay(lasting=True)] == finals
                assert [message async for message in control.snapshot()] == finals[-3:]

    run(main())
