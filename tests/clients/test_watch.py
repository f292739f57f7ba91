"""`clser-watch` against an engine that does as it is told."""

import asyncio
import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from samples import result, status
from scripted import Answering, ScriptedEngine

from clser.clients.commands import output, watch
from clser.clients.console import Console
from clser.clients.subscribe import Subscriber
from clser.engine.errors import GivenError
from clser.engine.records import Message


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ScriptedEngine]:
    made = ScriptedEngine(tmp_path)
    yield made
    made.close()


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["clser-watch", *arguments])
    monkeypatch.setattr(watch, "set_up_log", lambda *_: None)
    return watch._main()


def test_a_question(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Answering(engine, ([], {"said": "ąę"})) as answering:
        fields = ["stream=on", "muted=true", "after=3", "set=[a.b=1]", "speaker=", "at=2020-01-01"]
        assert command(monkeypatch, "--connect", engine.endpoint, "ask", "mute", *fields) == 0
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    assert json.loads(line)["said"] == "ąę"
    (question,) = answering.questions
    assert question == {
        "op": "mute", "id": question["id"], "stream": "on", "muted": True, "after": 3, "set": ["a.b=1"],
        "speaker": None, "at": "2020-01-01",
    }  # fmt: skip


def test_a_delta_that_lies_here_is_named_by_its_whole_path(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with Answering(engine, *[([], {})] * 3) as answering:
        for field in ("delta=mine.safetensors", "delta=theirs.safetensors", "delta=null"):
            assert command(monkeypatch, "--connect", engine.endpoint, "ask", "load", field) == 0
    asked = [question["delta"] for question in answering.questions]
    assert asked == [str((tmp_path / "mine.safetensors").resolve()), "theirs.safetensors", None]
    with pytest.raises(GivenError, match="or null"):
        command(monkeypatch, "--connect", engine.endpoint, "ask", "load", "delta=")


def test_flags_may_stand_on_either_side_of_the_question(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["--control", f"{engine.endpoint}.control", "ask", "live"],
        ["ask", "live", "--connect", engine.endpoint],
    ):
        with Answering(engine, ([], {"live": True})):
            assert command(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out.count('"live": true') == 2


def test_new_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "keys"
    assert command(monkeypatch, "keys", "new", str(folder)) == 0
    said = capsys.readouterr().out
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["allowed.keys", "engine.key", "public.key", "secret.key"]
    assert all(name in said for name in files)
    assert stat.S_IMODE((folder / "secret.key").stat().st_mode) == 0o600
    assert (folder / "secret.key").read_text().splitlines()[1] not in said
    before = (folder / "secret.key").read_bytes()
    with pytest.raises(SystemExit) as over:
        monkeypatch.setattr(sys, "argv", ["clser-watch", "keys", "new", str(folder)])
        watch.main()
    assert over.value.code == 2
    assert "give a new folder" in capsys.readouterr().err
    assert (folder / "secret.key").read_bytes() == before


def watching(engine: ScriptedEngine, *arguments: str) -> Any:
    given = watch._parser().parse_args(["--connect", engine.endpoint, *arguments])
    return watch._watch(given, output.choose(given.json))


def test_every_message_and_what_was_lost_on_the_way(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "TROUBLE_S", 0.05)

    async def main() -> int:
        task = asyncio.create_task(watching(engine, "--json", "--duration", "0.7"))
        await asyncio.to_thread(engine.joined, 2)
        answering = asyncio.create_task(asyncio.to_thread(answer))
        engine.send(*(result(seq=seq, stage="partial") for seq in (1, 2)), result(seq=5))
        await answering
        return await task

    def answer() -> None:
        question = engine.question()
        assert question["lasting"] is False
        engine.answer(question, result(seq=4), gone=1)

    assert asyncio.run(main()) == 0
    said = capfd.readouterr()
    assert [json.loads(line)["seq"] for line in said.out.splitlines()] == [1, 2, 5, 4]
    assert said.err == "clser-watch: fell behind: 1 message recovered, 1 lost\n"


def test_beginning_with_the_past(engine: ScriptedEngine, capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> int:
        task = asyncio.create_task(watching(engine, "--json", "--replay", "20", "--duration", "0.5"))
        await asyncio.to_thread(engine.joined, 2)
        engine.send(result(seq=2), result(seq=3))
        question = await asyncio.to_thread(engine.question)
        assert question["seconds"] == 20
        engine.answer(question, result(seq=1), result(seq=2))
        return await task

    assert asyncio.run(main()) == 0
    said = capfd.readouterr()
    assert [json.loads(line)["seq"] for line in said.out.splitlines()] == [1, 2, 3]
    assert said.err == ""


def test_the_console_notes_what_was_lost(engine: ScriptedEngine) -> None:
    given = watch._parser().parse_args([])
    console = Console()
    with Subscriber(engine.endpoint, control="") as subscriber:
        shown = watch._Watch(subscriber, console, "console", given)
        messages: list[Message] = [status(), result(seq=1), result(seq=5)]
        engine.joined(5).send(*messages)
        assert [subscriber.receive(5) for _ in messages] == messages
        shown.say_trouble()
        assert console._view.note == "fell behind: 3 lost"
