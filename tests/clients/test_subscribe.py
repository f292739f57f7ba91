"""The subscriber, over real sockets on the loopback."""

import asyncio
import json
import random
from collections.abc import Iterator

import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from samples import frame, result, status

from clser.clients.subscribe import Subscriber
from clser.engine import wire
from clser.engine.errors import GivenError
from clser.engine.records import KINDS, Message, Result

ENOUGH_S = 0.3  # nothing more is on its way after so long


class Sender:
    """The engine's end."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self.socket = self._context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.socket.bind("tcp://127.0.0.1:*")
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def wait_for(self, subscriptions: int) -> list[bytes]:
        seen = []
        for _ in range(subscriptions):
            assert self.socket.poll(5000), "no subscription came"
            seen.append(self.socket.recv()[1:])
        return seen

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.send_raw(wire.topic(wire.kind_of(message), message.stream), wire.encode(message))

    def send_raw(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def sender() -> Iterator[Sender]:
    made = Sender()
    yield made
    made.close()


def seqs(messages: list[Message]) -> list[int]:
    return [message.seq for message in messages]


def test_messages_come_in_order_and_end_with_the_timeout(sender: Sender) -> None:
    with Subscriber(sender.endpoint, timeout_s=ENOUGH_S, keep_latest=False) as subscriber:
        sender.wait_for(len(KINDS))
        sent: list[Message] = [status(), frame(), result(seq=1, stage="partial"), result(seq=2)]
        sender.send(*sent)
        assert list(subscriber) == sent
        assert (subscriber.missed, subscriber.refused) == (0, 0)


def test_messagepack_is_understood_too(sender: Sender) -> None:
    with Subscriber(sender.endpoint, kind="result") as subscriber:
        sender.wait_for(1)
        sender.send_raw(wire.topic("result", "kitchen"), wire.encode(result(), "msgpack"))
        assert subscriber.receive(5) == result()


def test_what_is_subscribed_to(sender: Sender) -> None:
    with Subscriber(sender.endpoint, kind=["result", "gap"], stream="kitchen", with_engine=True):
        assert set(sender.wait_for(3)) == {
            b"clser/1/result/kitchen/",
            b"clser/1/gap/kitchen/",
            b"clser/1/status/_engine/",
        }


def test_repeats_for_late_joiners_are_passed_over(sender: Sender) -> None:
    with Subscriber(sender.endpoint, kind="result", timeout_s=ENOUGH_S) as subscriber:
        sender.wait_for(1)
        live = [result(seq=seq) for seq in (5, 6, 7)]
        sender.send(*live, live[1], live[2])
        sender.send(result("hall", 3), result(seq=8))
        heard = list(subscriber)
        assert [(message.stream, message.seq) for message in heard] == [
            ("kitchen", 5), ("kitchen", 6), ("kitchen", 7), ("hall", 3), ("kitchen", 8),
        ]  # fmt: skip
        assert subscriber.missed == 0


def test_jumps_are_counted_for_each_topic(sender: Sender) -> None:
    with Subscriber(sender.endpoint, timeout_s=ENOUGH_S, keep_latest=False, control="") as subscriber:
        sender.wait_for(len(KINDS))
        sender.send(frame(seq=1), frame(seq=4), result(seq=1), result(seq=2), result(seq=5), frame("hall", 9))
        assert len(list(subscriber)) == 6
        assert subscriber.missed == 2 + 2


def test_the_last_final_and_the_last_result_on_joining_are_no_jump(sender: Sender) -> None:
    with Subscriber(sender.endpoint, kind="result", timeout_s=ENOUGH_S, keep_latest=False) as subscriber:
        sender.wait_for(1)
        sender.send(result(seq=5), result(seq=9, stage="partial"), result(seq=10))
        assert seqs(list(subscriber)) == [5, 9, 10]
        assert subscriber.missed == 0


def test_another_epoch_starts_anew(sender: Sender) -> None:
    with Subscriber(sender.endpoint, kind="result", timeout_s=ENOUGH_S) as subscriber:
        sender.wait_for(1)
        restarted = [msgspec.structs.replace(result(seq=seq), epoch=2) for seq in (1, 2)]
        sender.send(result(seq=8), result(seq=9), *restarted)
        assert seqs(list(subscriber)) == [8, 9, 1, 2]
        assert subscriber.missed == 0


FOREIGN = [
    (b"clser/1/result/kitchen/",),
    (b"clser/1/result/kitchen/", b"{", b"}"),
    (b"clser/1/result/kitchen/", b""),
    (b"clser/1/result/kitchen/", b"{"),
    (b"clser/1/result/kitchen/", b"\xff\xfe"),
    (b"clser/1/result/kitchen/", b'{"kind":"weather"}'),
    (b"clser/1/result/kitchen/", b'{"kind":"result","stream":"kitchen"}'),
    (b"clser/1/result/kitchen/", b'{"x":' + b"[" * 5000),
    (b"clser/1/result/hall/", wire.encode(result("kitchen"))),
]


def test_foreign_and_broken_messages_are_counted_and_passed_over(sender: Sender) -> None:
    with Subscriber(sender.endpoint, kind="result", timeout_s=ENOUGH_S) as subscriber:
        sender.wait_for(1)
        for frames in FOREIGN:
            sender.send_raw(*frames)
        sender.send(result())
        assert list(subscriber) == [result()]
        assert subscriber.refused == len(FOREIGN)


def test_no_bytes_make_it_raise() -> None:
    sender = Sender()

    @given(st.binary(max_size=200))
    def holds(body: bytes) -> None:
        sender.send_raw(b"clser/1/gap/kitchen/", body)
        sender.send(result(seq=next(numbers)))
        assert subscriber.receive(5) is not None

    numbers = iter(range(1, 1000))
    with Subscriber(sender.endpoint, kind=["gap", "result"]) as subscriber:
        sender.wait_for(2)
        holds()
        assert subscriber.refused > 0
    sender.close()


def spoilt(chance: random.Random) -> list[bytes]:
    """A publication as no engine sends it: cut, filled up, of wrong types, under wrong names and numbers."""
    fields = json.loads(wire.encode(chance.choice([result("hall"), frame("hall"), status(stream="hall")])))
    topic = wire.topic(fields["kind"], "hall")
    match chance.randrange(8):
        case 0:
            body = wire.encode(result("hall"))[: chance.randrange(400)]
        case 1:
            body = chance.randbytes(chance.randrange(2000))
        case 2:
            fields[chance.choice(list(fields))] = chance.choice([None, [], {}, "x", -1, 1e400, [[0] * 100], True])
            body = json.dumps(fields | {"stream": "cellar"}).encode()
        case 3:
            body = json.dumps(fields | {"stream": chance.choice(["", "\ud800", "a/b", "\0" * 300, "hall2"])}).encode()
        case 4:
            body = json.dumps(fields | {"seq": chance.choice([0, -1, -(2**62)])}).encode()
        case 5:
            body = b"[" * chance.randrange(3000)
        case 6:
            body = wire.encode(result("hall"), "msgpack")[: chance.randrange(400)]
        case _:
            return [topic] * chance.choice([1, 3, 40])
    return [topic, body]


def test_ten_thousand_hostile_publications(sender: Sender) -> None:
    chance = random.Random(7)
    with Subscriber(sender.endpoint, kind=["result", "frame", "status"], control="") as subscriber:
        sender.wait_for(3)
        for seq in range(1, 201):
            for _ in range(50):
                sender.send_raw(*spoilt(chance))
            sender.send(result(seq=seq))
            assert subscriber.receive(5) == result(seq=seq)
        assert subscriber.refused == 10_000
        assert (subscriber.missed, subscriber.restarts) == (0, 0)


def test_hostile_numbers_and_names_leave_it_bounded(sender: Sender) -> None:
    with Subscriber(sender.endpoint, control="", keep_latest=False) as subscriber:
        for number in range(1, 12_000):
            come(subscriber, status(stream=f"s{number}", seq=2**62))
            come(subscriber, frame(seq=number * 2**40), frame(seq=3, epoch=-number))
            while subscriber.receive(0) is not None:
                pass
        assert len(subscriber._gaps._topics) <= 8192
        assert subscriber.restarts > 10_000


def test_a_message_too_large_is_refused(sender: Sender) -> None:
    with Subscriber(sender.endpoint, kind="result", control="") as subscriber:
        sender.wait_for(1)
        padded = wire.encode(result(seq=8)).replace(b"{", b"{" + b" " * 2**20, 1)
        sender.send_raw(b"clser/1/result/kitchen/", padded)
        sender.send(result(seq=9))
        assert subscriber.receive(5) == result(seq=9)
        assert subscriber.refused == 1


def test_what_was_overtaken_is_left_out_and_no_final(sender: Sender) -> None:
    with Subscriber(sender.endpoint, timeout_s=0.0, control="") as subscriber:
        come(
            subscriber, status(seq=1), result(seq=1, stage="partial"), result("hall", 1, stage="partial"), frame(seq=1)
        )
        come(subscriber, result(seq=2, stage="partial"), result(seq=3), frame(seq=2), status(seq=2))
        come(subscriber, result(seq=4, stage="partial"), result(seq=5, stage="partial"), result(seq=6, utterance=2))
        come(subscriber, result(seq=7, stage="partial"), status(seq=3))
        heard = list(subscriber)
        assert [message.seq for message in heard if isinstance(message, Result) and message.final] == [3, 6]
        assert [m.seq for m in heard if isinstance(m, Result) and m.stream == "kitchen"] == [3, 6, 7]
        assert next(m.stream for m in heard if isinstance(m, Result)) == "hall"
        assert seqs([m for m in heard if wire.kind_of(m) == "frame"]) == [2]
        assert seqs([m for m in heard if wire.kind_of(m) == "status"]) == [1, 2, 3]
        assert (subscriber.overtaken, subscriber.missed) == (5, 0)


def test_every_message_comes_where_that_is_asked_for(sender: Sender) -> None:
    with Subscriber(sender.endpoint, timeout_s=0.0, control="", keep_latest=False) as subscriber:
        come(subscriber, *(result(seq=seq, stage="partial") for seq in range(1, 20)))
        assert seqs(list(subscriber)) == list(range(1, 20))


def come(subscriber: Subscriber, *messages: Message) -> None:
    """As if they had all come before the first is read."""
    for message in messages:
        subscriber._enter([wire.topic(wire.kind_of(message), message.stream), wire.encode(message)])


def test_async_iteration(sender: Sender) -> None:
    async def main() -> list[Message]:
        heard = []
        with Subscriber(sender.endpoint, kind="result", timeout_s=5) as subscriber:
            await asyncio.to_thread(sender.wait_for, 1)
            sender.send(result(seq=1))
            async for message in subscriber:
                heard.append(message)
                if message.seq == 3:
                    break
                sender.send(result(seq=message.seq + 1))
        return heard

    assert seqs(asyncio.run(main())) == [1, 2, 3]


def test_async_waiting_ends_with_the_timeout_and_lets_others_run(sender: Sender) -> None:
    async def main() -> tuple[Message | None, list[int]]:
        ticks: list[int] = []

        async def tick() -> None:
            while True:
                await asyncio.sleep(0.01)
                ticks.append(1)

        ticking = asyncio.create_task(tick())
        with Subscriber(sender.endpoint) as subscriber:
            message = await subscriber.areceive(0.2)
        ticking.cancel()
        return message, ticks

    message, ticks = asyncio.run(main())
    assert message is None
    assert len(ticks) >= 5


def test_a_flood_does_not_starve_the_loop(sender: Sender) -> None:
    async def main() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        with Subscriber(sender.endpoint, kind="result") as subscriber:
            come(subscriber, *(result(seq=seq) for seq in range(1, 300)))
            for _ in range(299):
                assert await subscriber.areceive(5) is not None
        counting.cancel()
        return turns

    assert asyncio.run(main()) >= 3


def test_nobody_there_is_no_error(tmp_path: object) -> None:
    with Subscriber(f"ipc://{tmp_path}/nobody", timeout_s=0.05) as subscriber:
        assert list(subscriber) == []
        assert subscriber.receive(0) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"endpoint": "nonsense"}, "give auto, ipc://PATH"),
        ({"kind": "weather"}, "give one of result"),
        ({"stream": "a/b"}, "1 to 64 of"),
    ],
)
def test_wrong_arguments_say_what_to_give(arguments: dict[str, str], says: str) -> None:
    with pytest.raises(GivenError, match=says):
        Subscriber(**arguments)  # type: ignore[arg-type]
