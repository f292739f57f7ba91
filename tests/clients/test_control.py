"""Asking an engine, over real sockets, where the engine does as it is told."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from samples import result
from scripted import Answering, ScriptedEngine

from clser.clients.control import Control, control_endpoint
from clser.engine.errors import GivenError, MissingError
from clser.engine.places import runtime_dir
from clser.engine.records import Message


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ScriptedEngine]:
    made = ScriptedEngine(tmp_path)
    yield made
    made.close()


def test_an_answer(engine: ScriptedEngine) -> None:
    with Control(publish=engine.endpoint) as control, Answering(engine, ([], {"live": True})) as answering:
        assert control.ask("live", colour="blue")["live"] is True
    assert answering.questions == [{"op": "live", "id": 1, "colour": "blue"}]


def test_a_refusal_says_why(engine: ScriptedEngine) -> None:
    with Control(f"{engine.endpoint}.control") as control:
        for reason in ("there is no stream 'x'", "x" * 10_000):
            with Answering(engine, ([], {"ok": False, "reason": reason})), pytest.raises(GivenError) as error:
                control.ask("mute", stream="x")
            assert str(error.value) == f"the engine refuses mute: {reason[:500]}"


def test_nobody_there(tmp_path: Path) -> None:
    with Control(f"ipc://{tmp_path}/nobody.control") as control, pytest.raises(MissingError, match="no engine answers"):
        control.ask("live")


def test_an_engine_that_comes_up_later_does_not_find_what_was_asked_before(engine: ScriptedEngine) -> None:
    assert engine.asked is not None
    engine.asked.bind("tcp://127.0.0.1:*")
    place = engine.asked.getsockopt_string(zmq.LAST_ENDPOINT)
    engine.asked.unbind(place)
    with Control(place) as control:
        for _ in range(2):
            with pytest.raises(MissingError, match="start one, or give its control socket"):
                control.ask("mute", timeout_s=0.05, stream="kitchen")
        engine.asked.bind(place)
        with Answering(engine, ([], {"ready": True})) as answering:
            assert control.ask("ready", timeout_s=5)["ready"]
    assert [question["op"] for question in answering.questions] == ["ready"]


def test_pages_are_asked_for_as_they_are_wanted(engine: ScriptedEngine) -> None:
    pages: tuple[tuple[list[Message], dict[str, Any]], ...] = (
        ([result(seq=1), result(seq=2)], {"more": True, "after": 7}),
        ([result(seq=3)], {"more": True, "after": 9}),
        ([], {"more": True, "after": 9}),
    )
    with Control(publish=engine.endpoint) as control, Answering(engine, *pages) as answering:
        assert [message.seq for message in control.replay(seconds=5.0)] == [1, 2, 3]
    assert [question["after"] for question in answering.questions] == [0, 7, 9]
    assert {question["seconds"] for question in answering.questions} == {5.0}


def test_for_an_event_loop(engine: ScriptedEngine) -> None:
    async def main() -> list[int]:
        with Control(publish=engine.endpoint) as control:
            assert (await control.aask("ready"))["ready"] is False
            with pytest.raises(GivenError):
                await control.aask("mute")
            return [message.seq async for message in control.snapshot(prefixes=["clser/1/result/"])]

    answers: list[tuple[list[Message], dict[str, Any]]] = [
        ([], {"ready": False}),
        ([], {"ok": False, "reason": "no"}),
        ([result(seq=1)], {"more": True, "after": 1}),
        ([result(seq=4)], {}),
    ]
    with Answering(engine, *answers):
        assert asyncio.run(main()) == [1, 4]


def test_what_is_no_message_of_ours_is_passed_over_and_counted(engine: ScriptedEngine) -> None:
    def answer() -> None:
        question = engine.question()
        engine.answer_raw(question, b"nonsense")
        good = [b"clser/1/result/kitchen/", b"{}", b"clser/1/result/kitchen/", b"\xc1", b"", b""]
        engine.answer_raw(question, b'{"id":1,"ok":true,"more":false}', *good)

    thread = threading.Thread(target=answer)
    thread.start()
    with Control(publish=engine.endpoint) as control:
        assert list(control.snapshot()) == []
        assert control.refused == 1 + 3
    thread.join(10)


def test_where_an_engine_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert control_endpoint("auto", "auto") == f"ipc://{runtime_dir()}/results.control"
    assert control_endpoint("auto", "ipc:///run/a") == "ipc:///run/a.control"
    assert control_endpoint("auto", "tcp://192.0.2.1:5556") is None
    assert control_endpoint("", "auto") is None
    assert control_endpoint("tcp://192.0.2.1:5557", "tcp://192.0.2.1:5556") == "tcp://192.0.2.1:5557"
    with pytest.raises(GivenError, match="give its endpoint with --control"):
        Control(publish="tcp://192.0.2.1:5556")
    with pytest.raises(GivenError, match="give auto, ipc://PATH"):
        Control("nonsense")
