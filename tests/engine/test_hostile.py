"""Ten thousand hostile packets at every door: refused and counted, the engine goes on, and its memory stays as it is.

`run` (fakes.py) fails a test over anything that raises into the event loop.
"""

import asyncio
import contextlib
import dataclasses
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
import zmq.asyncio
from fakes import ManualClock, Rig, run
from hostile import Frames, Stranger, resident_mb
from listening import SPOKEN, alone, answers, turns

from clser.clients.subscribe import Subscriber
from clser.engine import wire
from clser.engine.health import MetricsConfig, MetricsServer
from clser.engine.keys import make_keys, read_keys, unlock
from clser.engine.metrics import Metrics
from clser.engine.records import KINDS, Gap, Result, Status
from clser.engine.sources import SourceSettings, open_source
from examples import EXAMPLES

MANY, WARM_UP = 10_000, 2_000
GROWTH_MB = 6.0
BURST = 20  # packets in a row before the engine gets its turn


async def flat(send: Callable[[int], Awaitable[None]]) -> None:
    """Send some, and then many: by then memory must have stopped growing."""
    await send(WARM_UP)
    before = resident_mb()
    await send(MANY)
    assert resident_mb() - before < GROWTH_MB


@contextlib.asynccontextmanager
async def door(
    endpoint: str, kind: int, *, subscribe: bytes | None = None, keys: Path | None = None
) -> AsyncIterator[Any]:
    """A stranger's socket, or a friend's."""
    context = zmq.asyncio.Context()
    socket = context.socket(kind)
    if keys is not None:
        unlock(socket, read_keys(keys))
    if subscribe is not None:
        socket.subscribe(subscribe)
    socket.connect(endpoint)
    try:
        yield socket
    finally:
        context.destroy(linger=0)


def header(op: str, **fields: Any) -> bytes:
    return json.dumps({"op": op, "stream": "rude", **fields}).encode()


# --- sound ------------------------------------------------------------------------------------------------------------

SOUND = SPOKEN[:320].tobytes()
INGEST = [
    [header("open", sample_rate_hz=16_000, channels=1, format="s16")],
    [header("open", sample_rate_hz=48_000, channels=2, format="f32", speaker="Ada")],
    [header("audio", start_sample=0, captured_unix_us=1_700_000_000_000_000), SOUND],
    [header("audio"), np.full(80, np.nan, np.float32).tobytes()],
    [msgspec.msgpack.encode({"op": "audio", "stream": "rude", "start_sample": 960}), SOUND],
    [header("close")],
]


def test_sound_that_is_none_disturbs_no_stream(tmp_path: Path) -> None:
    async def main() -> None:
        async with Rig() as rig:
            settings = SourceSettings(clock=rig.clock)
            settings = dataclasses.replace(settings, ingest=msgspec.structs.replace(settings.ingest, most_streams=8))
            source = open_source(f"zmq:ipc://{tmp_path}/in", settings)
            listening = asyncio.create_task(source.run(rig.engine))
            strangers = Stranger(INGEST)
            async with (
                door(f"ipc://{tmp_path}/in", zmq.DEALER) as rude,
                door(f"ipc://{tmp_path}/in", zmq.DEALER) as good,
            ):

                async def send(count: int) -> None:
                    for number, frames in enumerate(strangers.packets(count)):
                        await rude.send_multipart(frames)
                        if number % BURST == 0:
                            await rig.clock.advance(0.001)
                            while await rude.poll(0):
                                await rude.recv_multipart()

                good.send_multipart([b'{"op":"open","stream":"good"}'])
                assert json.loads(await good.recv())["op"] == "opened"
                half = len(SPOKEN) // 2
                for at in range(0, half, 320):
                    await good.send_multipart([b'{"op":"audio","stream":"good"}', SPOKEN[at : at + 320].tobytes()])
                await flat(send)
                for at in range(half // 320 * 320, len(SPOKEN), 320):
                    await good.send_multipart([b'{"op":"audio","stream":"good"}', SPOKEN[at : at + 320].tobytes()])
                await good.send(b'{"op":"close","stream":"good"}')
                assert json.loads(await good.recv())["op"] == "closed"
                assert (answers(rig, "good"), turns(rig, "good")) == alone(1)
                assert source.refused > MANY * 0.9
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    run(main(), 60)


def test_packets_of_megabytes_are_not_even_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with Rig(bus={"publish": f"ipc://{tmp_path}/bus"}) as rig:
            source = open_source(f"zmq:ipc://{tmp_path}/in", SourceSettings(clock=rig.clock))
            listening = asyncio.create_task(source.run(rig.engine))
            await rig.settle()
            doors = (
                (
                    f"ipc://{tmp_path}/in",
                    zmq.DEALER,
                    b'{"op":"open","stream":"good"}',
                    b'{"op":"opened","stream":"good"}',
                ),
                (rig.engine.endpoint or "", zmq.XSUB, b"\x01clser/1/status/", b"clser/1/status/_engine/"),
            )
            for endpoint, kind, ask, answer in doors:
                async with door(endpoint, kind) as rude:
                    for _ in range(20):
                        await rude.send(
                            b"\x02" + bytes(4_000_000)
                        )  # a subscription as long breaks the one who sends it
                        await asyncio.sleep(0)
                async with door(endpoint, kind) as good:
                    await good.send(ask)
                    assert (await asyncio.wait_for(good.recv_multipart(), 5))[0] == answer
            assert source.refused == 0
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    run(main(), 60)


# --- questions --------------------------------------------------------------------------------------------------------

QUESTIONS: list[Frames] = [
    [b'{"op":"live","id":7}'],
    [b'{"op":"describe"}'],
    [b'{"op":"snapshot","prefixes":["clser/1/result/"]}'],
    [b'{"op":"replay","seconds":5,"most":3,"lasting":true}'],
    [b'{"op":"replay","topic":"clser/1/result/good/","from_seq":1,"to_seq":9}'],
    [b'{"op":"reload","set":["segment.end_ms=200"]}'],
    [b'{"op":"mute","stream":"nobody","muted":true}'],
    [b'{"op":"reset_speaker","stream":"nobody","speaker":"Ada"}'],
    [msgspec.msgpack.encode({"op": "replay", "prefixes": ["clser/"], "after": 3})],
]


def test_every_question_gets_one_answer_however_it_is_asked(tmp_path: Path) -> None:
    async def main() -> None:
        async with Rig(bus={"control": f"ipc://{tmp_path}/control"}) as rig:
            strangers = Stranger(QUESTIONS, most_bytes=12_000)
            refusals = 0
            async with door(f"ipc://{tmp_path}/control", zmq.DEALER) as rude:

                async def send(count: int) -> None:
                    nonlocal refusals
                    for frames in strangers.packets(count):
                        await rude.send_multipart(frames)
                        reply, *pairs = await asyncio.wait_for(rude.recv_multipart(), 5)
                        said = json.loads(reply or pairs.pop(0))  # as a REQ socket asks, so it is answered
                        assert said["ok"] or said["reason"]
                        assert len(pairs) == 2 * said.get("count", 0)
                        refusals += not said["ok"]

                await flat(send)
            async with door(f"ipc://{tmp_path}/control", zmq.REQ) as good:
                await good.send(b'{"op":"live","id":"x"}')
                said = json.loads(await good.recv())
                assert (said["ok"], said["id"]) == (True, "x")
            assert rig.engine._control.refused == refusals > MANY * 0.9

    run(main(), 60)


def test_a_setting_of_many_brackets_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Rig(bus={"control": f"ipc://{tmp_path}/control"}),
            door(f"ipc://{tmp_path}/control", zmq.DEALER) as rude,
        ):
            await rude.send(b'{"op":"reload","set":["segment.end_ms=' + b"[" * 600 + b'"]}')
            assert not json.loads(await asyncio.wait_for(rude.recv(), 2))["ok"]

    run(main())


# --- readers ----------------------------------------------------------------------------------------------------------

SUBSCRIPTIONS = [[b"\x01clser/1/frame/"], [b"\x01clser/1/result/good/"], [b"\x00clser/1/"], [b"\x01"], [b"\x02hello"]]


def test_readers_that_say_what_readers_do_not_say_harm_no_reader(tmp_path: Path) -> None:
    async def main() -> None:
        async with Rig(bus={"publish": f"ipc://{tmp_path}/bus"}) as rig:
            endpoint = rig.engine.endpoint or ""
            noise = random.Random(1)

            async def send(count: int) -> None:
                for _ in range(count // 1000):  # what one has subscribed to is forgotten when it goes
                    async with door(endpoint, zmq.XSUB) as rude:
                        for number in range(1000):
                            frames = [*noise.choice(SUBSCRIPTIONS)]
                            frames[0] = frames[0][: noise.randint(0, 30)] + noise.randbytes(noise.choice((0, 0, 8, 60)))
                            await rude.send_multipart(frames + [b"x"] * noise.choice((0, 0, 0, 1, 9)))
                            if number % BURST == 0:
                                await asyncio.sleep(0)
                        await rude.send(
                            b"\x01" + wire.topic("status")
                        )  # all before it has been dealt with when this comes
                        while not (await rude.recv_multipart())[0].startswith(wire.topic("status")):
                            pass

            async with door(endpoint, zmq.SUB, subscribe=wire.topic("result", "good")) as good:
                await flat(send)
                stream = rig.engine.open("good")
                await stream.feed(SPOKEN)
                await stream.close()
                finals: list[Result] = []
                while len(finals) < 2:
                    message = wire.decode((await asyncio.wait_for(good.recv_multipart(), 5))[1])
                    finals += [message] if isinstance(message, Result) and message.final else []
                assert finals == rig.finals("good")

    run(main(), 60)


def test_a_publisher_that_is_none_harms_no_subscriber(tmp_path: Path) -> None:
    """Its topics are right, else nothing would arrive."""
    real = [
        [wire.encode(example, form), wire.topic(kind, example.stream)]
        for kind, example in EXAMPLES.items()
        for form in ("json", "msgpack")
    ]
    strangers = Stranger(real)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    publisher = context.socket(zmq.XPUB)
    publisher.bind(f"ipc://{tmp_path}/bus")
    with Subscriber(f"ipc://{tmp_path}/bus", keep_latest=False) as subscriber:
        for _ in KINDS:
            assert publisher.poll(5000)
            publisher.recv()
        heard = 0

        async def send(count: int) -> None:
            nonlocal heard
            for number, (body, *rest) in enumerate(strangers.packets(count), 1):
                publisher.send_multipart([wire.topic(KINDS[number % 5], "kitchen"), body, *rest[1:]])
                if number % BURST == 0:
                    publisher.send_multipart([wire.topic("status", "marker"), marker(number)])
                    while (message := subscriber.receive(5)) is not None and message.stream != "marker":
                        heard += 1
                    assert message is not None

        asyncio.run(flat(send))
        assert subscriber.refused > (MANY + WARM_UP) * 0.8
        assert subscriber.refused + heard <= MANY + WARM_UP
    context.destroy(linger=0)


def marker(number: int) -> bytes:
    """From an engine that has just been started: the strangers' messages were, too."""
    return wire.encode(
        Status(stream="marker", epoch=10**15 + number, seq=1, unix_us=0, state="ready", event="heartbeat")
    )


# --- the metrics port, and bytes that are no ZeroMQ -------------------------------------------------------------------

REQUESTS = [
    [b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"],
    [b"GET /ready HTTP/1.0\r\n\r\n"],
    [b"HEAD /live HTTP/1.1\r\n\r\n"],
]


async def shout(host: str, port: int, words: bytes) -> bytes:
    """Connect, say it, hang up; what came back."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(words)
        writer.write_eof()
        return await reader.read(100)
    except OSError:  # it hung up first
        return b""
    finally:
        writer.transport.abort()


def test_visitors_that_are_no_browsers_are_shown_out() -> None:
    async def main() -> None:
        server = MetricsServer(Metrics(lambda: {"finals": 1}, ManualClock()), lambda: {"ready": True, "state": "ready"})
        await server.start(MetricsConfig("127.0.0.1:0"))
        port = int((server.endpoint or "").rpartition(":")[2])
        noise = random.Random(1)

        async def send(count: int) -> None:
            for _ in range(count // 10):
                words = [
                    bytearray(noise.choice(REQUESTS)[0]) + noise.randbytes(noise.choice((0, 9, 6000)))
                    for _ in range(10)
                ]
                for each in words:
                    each[noise.randrange(len(each))] = noise.randrange(256)
                    del each[noise.randrange(len(each)) :]
                backs = await asyncio.gather(*(shout("127.0.0.1", port, bytes(each)) for each in words))
                assert all(back == b"" or back.startswith(b"HTTP/1.1 ") for back in backs)

        await flat(send)
        assert server.refused > MANY * 0.5
        assert (await shout("127.0.0.1", port, REQUESTS[2][0])).startswith(b"HTTP/1.1 200 ")
        await server.stop()

    run(main(), 60)


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"


@pytest.mark.parametrize("locked", [False, True])
def test_bytes_that_are_no_zeromq_harm_no_reader(locked: bool, tmp_path: Path) -> None:
    """On a door that is open, and on one with a lock: strangers without a key, and with a key of their own, stay outside."""

    async def main() -> None:
        keys = {}
        if locked:
            for name in ("ours", "theirs"):
                make_keys(tmp_path / name)
            (tmp_path / "theirs" / "engine.key").write_bytes((tmp_path / "ours" / "engine.key").read_bytes())
            keys = {"keys": str(tmp_path / "ours")}
        async with Rig(bus={"publish": "tcp://127.0.0.1:*", "control": "", **keys}) as rig:
            endpoint = rig.engine.endpoint or ""
            port = int(endpoint.rpartition(":")[2])
            noise = random.Random(1)

            async def send(count: int) -> None:
                for _ in range(count // 10):
                    junk = [
                        GREETING[: noise.randint(0, 70)] + noise.randbytes(noise.choice((0, 5, 200))) for _ in range(9)
                    ]
                    junk.append(GREETING + READY + noise.randbytes(200))
                    await asyncio.gather(*(shout("127.0.0.1", port, words) for words in junk))

            friend = tmp_path / "ours" if locked else None
            async with door(endpoint, zmq.SUB, subscribe=b"clser/1/gap/", keys=friend) as good:
                strangers = [door(endpoint, zmq.SUB, subscribe=b"", keys=at) for at in strange_keys(tmp_path, locked)]
                async with contextlib.AsyncExitStack() as stack:
                    outside = [await stack.enter_async_context(stranger) for stranger in strangers]
                    await flat(send)
                    while not await good.poll(10):
                        rig.engine._bus.publish(Gap(stream="good", from_sample=0, count=1, reason="lost"))
                    assert wire.decode((await good.recv_multipart())[1]).stream == "good"
                    assert not any([await each.poll(0) for each in outside])
            assert (rig.engine.doors.turned_away > 0) == locked

    run(main(), 60)


def strange_keys(folder: Path, locked: bool) -> list[Path | None]:
    return [None, folder / "theirs"] if locked else []
