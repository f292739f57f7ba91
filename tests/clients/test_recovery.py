"""What a subscriber does about messages that got lost, over real sockets, against an engine that does as it is told."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from samples import frame, result, status
from scripted import Question, ScriptedEngine, framed

from clser.clients import recovery
from clser.clients.subscribe import QUEUE, Subscriber
from clser.engine.errors import GivenError
from clser.engine.records import Message

SOON_S = 0.05


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ScriptedEngine]:
    made = ScriptedEngine(tmp_path)
    yield made
    made.close()


def listening(engine: ScriptedEngine, **arguments: Any) -> Subscriber:
    made = Subscriber(engine.endpoint, **{"kind": "result", **arguments})
    engine.joined(1)
    return made


def partial(seq: int, **fields: Any) -> Message:
    return result(seq=seq, stage="partial", **fields)


def heard(subscriber: Subscriber, count: int) -> list[int]:
    """The numbers of that many messages, which come within 5 s."""
    seqs = []
    for _ in range(count):
        message = subscriber.receive(5)
        assert message is not None, f"only {seqs} came"
        seqs.append(message.seq)
    return seqs


def until(subscriber: Subscriber, condition: Callable[[], bool]) -> list[int]:
    """Read on until that is so; the numbers of what came."""
    seqs = []
    for _ in range(500):
        message = subscriber.receive(0.01)
        if message is not None:
            seqs.append(message.seq)
        if condition():
            return seqs
    raise AssertionError("it never was")


def test_what_was_lost_comes_back_while_reading_goes_on(engine: ScriptedEngine) -> None:
    with listening(engine) as subscriber:
        engine.send(result(seq=1), result(seq=4))
        assert heard(subscriber, 2) == [1, 4]
        question = engine.question()
        assert question == {
            "op": "replay", "id": question["id"], "topic": "clser/1/result/kitchen/",
            "from_seq": 2, "to_seq": 3, "lasting": True, "after": 0,
        }  # fmt: skip
        engine.send(result(seq=5))
        assert heard(subscriber, 1) == [5]
        engine.answer(question, result(seq=2), result(seq=3), gone=0, passed=0)
        assert heard(subscriber, 2) == [2, 3]
        engine.send(result(seq=2), result(seq=5), result(seq=6))
        assert heard(subscriber, 1) == [6]
        assert (subscriber.recovered, subscriber.missed, subscriber.overtaken) == (2, 0, 0)


def test_an_answer_in_pages(engine: ScriptedEngine) -> None:
    with listening(engine, keep_latest=False) as subscriber:
        engine.send(result(seq=1), result(seq=6))
        heard(subscriber, 2)
        question = engine.question()
        assert question["lasting"] is False
        engine.answer(question, partial(2), partial(3), more=True, after=17, gone=1)
        assert heard(subscriber, 2) == [2, 3]
        question = engine.question(lambda: subscriber.receive(0))
        assert question["after"] == 17
        engine.answer(question, result(seq=4), gone=1)
        assert heard(subscriber, 1) == [4]
        assert until(subscriber, lambda: subscriber.missed == 1) == []


def test_what_is_worth_nothing_later_counts_as_overtaken(engine: ScriptedEngine) -> None:
    with listening(engine) as subscriber:
        engine.send(result(seq=1), result(seq=10))
        heard(subscriber, 2)
        engine.answer(engine.question(), result(seq=5), gone=2, passed=5)
        assert heard(subscriber, 1) == [5]
        assert (subscriber.recovered, subscriber.missed, subscriber.overtaken) == (1, 2, 5)


@pytest.mark.parametrize("answer", ["none", "refused"])
def test_what_the_engine_does_not_give_is_lost(
    engine: ScriptedEngine, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "ANSWER_S", SOON_S if answer == "none" else 5.0)
    with listening(engine) as subscriber:
        engine.send(result(seq=1), result(seq=4), result(seq=9))
        assert heard(subscriber, 3) == [1, 4, 9]
        if answer == "refused":
            for _ in range(2):
                question = engine.question(lambda: subscriber.receive(0))
                engine.answer(question, ok=False, reason="not today")
        assert until(subscriber, lambda: subscriber.missed == 2 + 4) == []
        said = subscriber.trouble()
        assert said.startswith("fell behind: 6 lost")
        assert ("nobody answers at ipc://" in said) == (answer == "none")
        assert subscriber.trouble() == ""


def test_a_late_answer_is_no_answer_to_the_next_question(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "ANSWER_S", SOON_S)
    with listening(engine) as subscriber:
        engine.send(result(seq=1), result(seq=4))
        heard(subscriber, 2)
        stale = engine.question()
        until(subscriber, lambda: subscriber.missed == 2)
        monkeypatch.setattr(recovery, "ANSWER_S", 5.0)
        engine.send(result(seq=7))
        heard(subscriber, 1)
        while (question := engine.question())["from_seq"] != 5:
            assert question["from_seq"] == 2, "asked a second time, before that was given up"
        question_of_before = Question(question.who, dict(stale))
        engine.answer(question_of_before, result(seq=2), gone=0)
        engine.answer(question, result(seq=5), result(seq=6), gone=0)
        assert heard(subscriber, 2) == [5, 6]


def test_a_question_that_was_lost_is_asked_again(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "ANSWER_S", 1.0)
    with listening(engine) as subscriber:
        engine.send(result(seq=1), result(seq=4))
        heard(subscriber, 2)
        lost = engine.question()
        monkeypatch.setattr(recovery, "ANSWER_S", 10.0)
        again = engine.question(lambda: subscriber.receive(0))
        assert {**again, "id": lost["id"]} == lost
        assert again.who != lost.who, "over a new connection"
        engine.answer(again, result(seq=2), result(seq=3), gone=0)
        assert heard(subscriber, 2) == [2, 3]
        assert subscriber.missed == 0


def test_without_a_control_socket_what_is_lost_is_lost_at_once(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, control=False)
    with listening(engine) as auto, listening(engine, control="") as none:
        engine.send(result(seq=1), result(seq=4))
        for subscriber in (auto, none):
            assert heard(subscriber, 2) == [1, 4]
            assert subscriber.missed == 2
    engine.close()


def test_lost_frames_are_not_asked_for(engine: ScriptedEngine) -> None:
    with listening(engine, kind="frame") as latest, listening(engine, kind="frame", keep_latest=False) as every:
        engine.send(frame(seq=1), frame(seq=5))
        assert until(latest, lambda: latest.overtaken >= 3)[-1:] == [5]
        assert heard(every, 2) == [1, 5]
        assert (latest.missed, every.missed) == (0, 3)
        assert not engine.was_asked()


def test_what_was_lost_last_is_noticed_though_nothing_comes_after_it(engine: ScriptedEngine) -> None:
    with listening(engine, keep_latest=False) as subscriber:
        engine.send(*(partial(seq) for seq in range(1, QUEUE + 1)))
        heard(subscriber, QUEUE)
        subscriber._in_a_row = QUEUE  # as if they had been read in one go: the queue had been full
        question = engine.question(lambda: subscriber.receive(0))
        assert (question["op"], question["prefixes"]) == ("snapshot", ["clser/1/result/"])
        engine.answer(question, result(seq=QUEUE + 3), result("hall", 2))
        assert heard(subscriber, 2) == [QUEUE + 3, 2]
        question = engine.question()
        assert (question["from_seq"], question["to_seq"]) == (QUEUE + 1, QUEUE + 2)
        engine.answer(question, partial(QUEUE + 1), result(seq=QUEUE + 2), gone=0)
        assert heard(subscriber, 2) == [QUEUE + 1, QUEUE + 2]


def test_another_engine_on_the_same_endpoint(tmp_path: Path) -> None:
    first = ScriptedEngine(tmp_path)
    subscriber = listening(first)
    first.send(result(seq=7), result(seq=8))
    assert heard(subscriber, 2) == [7, 8]
    first.close()
    second = ScriptedEngine(tmp_path).joined(1, lambda: subscriber.receive(0))
    anew = [msgspec.structs.replace(result(seq=seq), epoch=2) for seq in range(1, 5)]
    second.send(anew[2], anew[3])
    assert heard(subscriber, 2) == [3, 4]
    question = second.question()
    assert (question["from_seq"], question["to_seq"]) == (1, 2), "what it said before we were back"
    second.answer(question, anew[0], anew[1], gone=0)
    assert heard(subscriber, 2) == [1, 2]
    assert (subscriber.restarts, subscriber.missed) == (1, 0)
    assert subscriber.trouble() == "the engine was restarted; fell behind: 2 messages recovered"
    subscriber.close()
    second.close()


def test_the_past_comes_first_and_nothing_twice(engine: ScriptedEngine) -> None:
    with listening(engine, replay_s=30.0) as subscriber:
        engine.send(result(seq=4), result(seq=5))
        question = engine.question(lambda: subscriber.receive(0))
        assert (question["op"], question["seconds"], question["lasting"]) == ("replay", 30.0, True)
        assert question["prefixes"] == ["clser/1/result/"]
        engine.answer(question, result(seq=1), result(seq=3), more=True, after=3)
        assert heard(subscriber, 2) == [1, 3]
        engine.answer(engine.question(lambda: subscriber.receive(0)), result(seq=4))
        assert heard(subscriber, 2) == [4, 5]
        assert (subscriber.missed, subscriber.recovered) == (0, 0)
        assert not engine.was_asked(), "number 2 is older than what was asked for, or worth nothing"


def test_a_past_that_nobody_tells_does_not_hold_up_the_present(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "ANSWER_S", SOON_S)
    with listening(engine, replay_s=30.0) as subscriber:
        engine.send(result(seq=4))
        assert heard(subscriber, 1) == [4]
        assert subscriber.trouble().startswith("nobody answers at ipc://")


def test_a_past_is_not_to_be_had_without_a_control_socket() -> None:
    with pytest.raises(GivenError, match="without one there is no past"):
        Subscriber("tcp://192.0.2.1:5556", replay_s=10.0)


def hostile(question: Question) -> list[list[bytes]]:
    """Replies that no engine sends."""

    def head(**facts: object) -> bytes:
        return json.dumps({"op": "replay", "id": question["id"], "ok": True, "more": False, **facts}).encode()

    lone = framed(result(seq=2))
    return [
        [b""],
        [b"\xff\xfe"],
        [b"[1]"],
        [b'{"id":1'],
        [b'{"x":' + b"[" * 5000],
        [head(ok="yes")],
        [head(id="1")],
        [head(id=[question["id"]])],
        [head(), lone[0]],
        [head(), *lone * 2000],
        [head(id=question["id"] + 1000), *lone],
    ]


def test_hostile_replies_are_passed_over(engine: ScriptedEngine) -> None:
    with listening(engine) as subscriber:
        engine.send(result(seq=1), result(seq=5))
        heard(subscriber, 2)
        question = engine.question()
        replies = hostile(question)
        for frames in replies:
            engine.answer_raw(question, *frames)
        wrong = [result("hall", 2), result(seq=9), partial(2), status(), result(seq=1)]
        engine.answer(question, result(seq=3), *wrong, result(seq=3), gone=10**30, more="yes", after=-1)
        assert heard(subscriber, 1) == [3]
        assert until(subscriber, lambda: subscriber.missed == 2) == []
        assert subscriber.refused == len(replies) - 1 + len(wrong)


def test_an_engine_that_always_has_more_is_asked_only_while_something_comes(engine: ScriptedEngine) -> None:
    with listening(engine) as subscriber:
        engine.send(result(seq=1), result(seq=5))
        heard(subscriber, 2)
        engine.answer(engine.question(), more=True, after=5, gone=0, passed=3)
        assert until(subscriber, lambda: subscriber.overtaken == 3) == []
        engine.send(result(seq=8))
        heard(subscriber, 1)
        engine.answer(engine.question(), result(seq=6), more=True, after=10, gone=0)
        assert heard(subscriber, 1) == [6]
        engine.answer(engine.question(lambda: subscriber.receive(0)), result(seq=6), more=True, after=9, gone=0)
        assert until(subscriber, lambda: subscriber.overtaken == 4) == []
        assert not engine.was_asked()


def test_recovery_for_an_event_loop(engine: ScriptedEngine) -> None:
    async def main() -> list[int]:
        with Subscriber(engine.endpoint, kind="result", timeout_s=5) as subscriber:
            await asyncio.to_thread(engine.joined, 1)
            engine.send(result(seq=1), result(seq=3))
            answering = asyncio.create_task(asyncio.to_thread(answer))
            seqs = []
            async for message in subscriber:
                seqs.append(message.seq)
                if len(seqs) == 3:
                    break
            await answering
            return seqs

    def answer() -> None:
        engine.answer(engine.question(), result(seq=2), gone=0)

    assert asyncio.run(main()) == [1, 3, 2]


def test_waiting_for_nothing_costs_nothing(engine: ScriptedEngine) -> None:
    """Replies that nobody asked for do not keep a reader awake."""
    with listening(engine) as subscriber:
        engine.send(result(seq=1), result(seq=3))
        heard(subscriber, 2)
        question = engine.question()
        engine.answer(question, result(seq=2), gone=0)
        assert heard(subscriber, 1) == [2]
        engine.answer(question, result(seq=2), gone=0)
        turns = 0
        real = subscriber._next

        def counted() -> Message | None:
            nonlocal turns
            turns += 1
            return real()

        subscriber._next = counted  # type: ignore[method-assign]
        assert subscriber.receive(0.1) is None
        assert turns <= 5
