"""What may be asked of a running engine: real sockets, fake workers."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio
from fakes import Rig, run
from listening import SPOKEN

from clser.engine import wire
from clser.engine.control import MOST_REQUEST_BYTES, OPS
from clser.engine.errors import GivenError
from clser.engine.records import Result, Status


class Asker:
    def __init__(self, endpoint: str, kind: int = zmq.DEALER) -> None:
        self._context = zmq.asyncio.Context()
        self.socket = self._context.socket(kind)
        self.socket.connect(endpoint)

    async def ask(self, *frames: bytes, **request: Any) -> tuple[dict[str, Any], list[bytes]]:
        await self.socket.send_multipart(frames or [json.dumps(request).encode()])
        head, *rest = await self.socket.recv_multipart()
        return json.loads(head), rest

    def close(self) -> None:
        self._context.destroy(linger=0)


@asynccontextmanager
async def asked(tmp_path: Path, **sections: Any) -> AsyncIterator[tuple[Rig, Asker]]:
    sections["bus"] = {"publish": f"ipc://{tmp_path / 'bus'}", **sections.get("bus", {})}
    async with Rig(**sections) as rig:
        asker = Asker(f"ipc://{tmp_path / 'bus'}.control")
        try:
            yield rig, asker
        finally:
            asker.close()


def test_live_and_ready_are_two_things(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (rig, asker):
            assert (await asker.ask(op="live"))[0]["live"] is True
            reply, _ = await asker.ask(op="ready", id="mine")
            assert reply == {"op": "ready", "id": "mine", "ok": True, "ready": True, "state": "ready"}
            rig.pool.lose()
            assert (await asker.ask(op="ready"))[0]["ready"] is False
            assert (await asker.ask(op="live"))[0]["live"] is True
            rig.pool.come_back()
            assert (await asker.ask(op="ready"))[0]["ready"] is True

    run(main())


def test_describe_tells_what_runs_here(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (rig, asker):
            stream = rig.engine.open("kitchen", speaker="anna", sample_rate_hz=48_000)
            reply, _ = await asker.ask(msgspec.msgpack.encode({"op": "describe"}))
            assert reply["model"]["name"] == "fake"
            assert "happy" in reply["classes"] or "happiness" in reply["classes"] or len(reply["classes"]) == 7
            [told] = reply["streams"]
            assert (told["name"], told["speaker"], told["sample_rate_hz"]) == ("kitchen", "anna", 48_000)
            assert reply["settings"]["segment.end_ms"] == {"value": 300, "changes": "new_streams"}
            assert reply["engine"]["publish"].endswith("bus")
            await stream.close()

    run(main())


def test_what_was_missed_comes_again_as_it_was_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (rig, asker):
            stream = rig.engine.open("a")
            for at in range(0, len(SPOKEN), 1600):
                await stream.feed(SPOKEN[at : at + 1600])
                await rig.settle()
            await stream.close()
            sent = [m for m in rig.messages if isinstance(m, Result)]
            topic = wire.topic("result", "a").decode()
            reply, rest = await asker.ask(op="replay", topic=topic, from_seq=2, to_seq=5)
            assert (reply["count"], reply["more"], reply["gone"], reply["passed"]) == (4, False, 0, 0)
            assert [wire.decode(body) for body in rest[1::2]] == sent[1:5]
            assert set(rest[::2]) == {topic.encode()}
            reply, rest = await asker.ask(op="replay", topic=topic, from_seq=1, lasting=True)
            assert [wire.decode(body) for body in rest[1::2]] == rig.finals("a")
            assert reply["passed"] == len(sent) - len(rig.finals("a"))
            everything: list[bytes] = []
            after, more = 0, True
            while more:
                reply, rest = await asker.ask(op="replay", after=after, most=3)
                everything += rest[1::2]
                after, more = reply["after"], reply["more"]
            assert [wire.decode(body) for body in everything] == rig.messages
            rig.clock.now_s += 61
            rig.pipeline.say("later")
            reply, rest = await asker.ask(op="replay", seconds=3600)
            assert [wire.decode(body).event for body in rest[1::2]] == ["later"]  # type: ignore[union-attr]
            reply, _ = await asker.ask(op="replay", topic=topic, from_seq=1, to_seq=len(sent) + 1000)
            assert (reply["count"], reply["gone"]) == (0, len(sent))

    run(main())


def test_a_snapshot_is_the_last_of_every_topic_and_the_last_final(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (rig, asker):
            for name in ("a", "b"):
                stream = rig.engine.open(name)
                await stream.feed(SPOKEN)
                await stream.close()
            reply, rest = await asker.ask(op="snapshot", prefixes=[wire.topic("result").decode()])
            assert reply["count"] == 2
            assert [wire.decode(body) for body in rest[1::2]] == [rig.finals("a")[-1], rig.finals("b")[-1]]

    run(main())


def test_mute_and_a_new_speaker(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (rig, asker):
            stream = rig.engine.open("a", speaker="anna")
            await stream.feed(SPOKEN[:24_000])  # in the middle of the first phrase
            assert (await asker.ask(op="reset_speaker", stream="a", speaker="ben"))[0]["ok"]
            await stream.feed(SPOKEN)
            await rig.settle()
            assert (await asker.ask(op="mute", stream="a"))[0]["ok"]
            assert (await asker.ask(op="describe"))[0]["streams"][0]["muted"]
            before = len(rig.finals("a"))
            await stream.feed(SPOKEN)
            await rig.settle()
            assert len(rig.finals("a")) == before
            assert (await asker.ask(op="mute", stream="a", muted=False))[0]["ok"]
            await stream.feed(SPOKEN)
            await stream.close()
            finals = rig.finals("a")
            assert len(finals) > before
            assert (finals[0].speaker, finals[0].reason) == ("anna", "speaker")
            assert {final.speaker for final in finals[1:]} == {"ben"}
            said = [m.event for m in rig.of(Status, "a")]
            assert [e for e in said if e in ("muted", "unmuted", "speaker_reset")] == [
                "speaker_reset",
                "muted",
                "unmuted",
            ]
            reply, _ = await asker.ask(op="mute", stream="nobody")
            assert not reply["ok"]
            assert "not open" in reply["reason"]

    run(main())


def test_reload_changes_all_of_it_or_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "mine.yaml"
        here = f"bus: {{publish: 'ipc://{tmp_path / 'bus'}'}}\n"
        file.write_text(here)
        async with asked(tmp_path) as (rig, asker):
            rig.engine._source = file
            old = rig.engine.open("old")
            await old.feed(SPOKEN[:8_000])
            file.write_text(f"{here}segment: {{end_ms: 120}}\nfuse: {{abstain_below: 0.99}}\n")
            reply, _ = await asker.ask(op="reload")
            assert reply["changed"] == {"live": ["fuse.abstain_below"], "new_streams": ["segment.end_ms"]}
            await old.feed(SPOKEN[8_000:])
            await old.close()
            new = rig.engine.open("new")
            await new.feed(SPOKEN)
            await new.close()
            assert [f.emotion.abstained for f in rig.finals("old")] == [True, True]
            assert rig.finals("new")[0].end_sample <= rig.finals("old")[0].end_sample
            assert rig.engine.config.segment.end_ms == 120
            for wrong, why in (
                (["pool.workers=2", "segment.end_ms=500"], "only be changed by a new start"),
                (["segment.end_ms=500", "fuse.abstain_below=7"], "abstain_below"),
                (["segment.nonsense=1"], "there is no"),
            ):
                reply, _ = await asker.ask(op="reload", set=wrong)
                assert not reply["ok"]
                assert why in reply["reason"]
            assert rig.engine.config.segment.end_ms == 120
            reply, _ = await asker.ask(op="reload", set=["overload.up_s=1.0"])
            assert reply["changed"]["live"] == ["overload.up_s"]
            assert rig.engine.config.overload.up_s == 1.0
            assert [m.detail for m in rig.of(Status) if m.event == "reloaded"] == [
                "fuse.abstain_below, segment.end_ms",
                "overload.up_s",
            ]

    run(main())


def test_an_engine_without_a_file_can_be_changed_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (rig, asker):
            assert (await asker.ask(op="reload", set=["fuse.abstain_below=0.5"]))[0]["ok"]
            assert rig.engine.config.fuse.abstain_below == 0.5
            assert (await asker.ask(op="reload"))[0]["changed"] == {"live": [], "new_streams": []}

    run(main())


def test_whatever_is_asked_gets_one_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (rig, asker):
            wrong = [
                [b"\x00"],
                [b"{"],
                [b"{}"],
                [b'{"op":"fly"}'],
                [b'{"op":"live","more":1}'],
                [b'{"op":"replay","seconds":-1}'],
                [b'{"op":"replay","seconds":1e999}'],
                [b'{"op":"replay","after":' + b"9" * 400 + b"}"],
                [b"[" * 9000],
                [b"\x81" * 3000],
                [b'{"op":"live"}', b"again"],
            ]
            for frames in wrong:
                reply, rest = await asker.ask(*frames)
                assert reply["ok"] is False
                assert rest == []
            assert rig.engine._control.refused == len(wrong)
            assert all(op in reply["reason"] for op in OPS) or "frames" in reply["reason"]

    run(main())


def test_a_request_that_is_too_long_is_not_even_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (_, asker):
            await asker.socket.send(b"x" * (MOST_REQUEST_BYTES + 1))  # the connection is cut; ZeroMQ makes a new one
            other = Asker(f"ipc://{tmp_path / 'bus'}.control", zmq.REQ)  # with its empty frame
            assert (await other.ask(op="live"))[0]["ok"]
            other.close()

    run(main())


def test_without_a_socket_to_publish_there_is_none_to_ask() -> None:
    async def main() -> None:
        async with Rig() as rig:
            assert rig.engine._control.endpoint is None
            with pytest.raises(GivenError, match="not open"):
                rig.engine.mute("a")

    run(main())
