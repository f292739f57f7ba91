"""Sound over a real socket from robots that start again, stumble, or quarrel over names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import run, sound
from hypothesis import given, settings
from hypothesis import strategies as st
from listening import SPOKEN, hear
from robots import listening

from clser.engine.errors import OverloadedError
from clser.engine.ingest import IngestConfig
from clser.engine.records import Gap, Result
from clser.engine.sources.zmq import MOST_WAITING


def spans(results: list[Result]) -> list[tuple[int, int]]:
    return [(result.start_sample, result.end_sample) for result in results]


# --- what is sent is heard --------------------------------------------------------------------------------------------


@settings(max_examples=6)
@given(sizes=st.lists(st.integers(200, 4000), min_size=1, max_size=20))
def test_utterances_are_the_same_for_any_packet_size_through_a_real_socket(
    tmp_path_factory: Any, sizes: list[int]
) -> None:
    async def main() -> None:
        async with listening(tmp_path_factory.mktemp("socket")) as place:
            robot = place.robot()
            assert await robot.ask("open", "robot") == ("opened", "")
            start = turn = 0
            while start < len(SPOKEN):
                size = sizes[turn % len(sizes)]
                robot.send("audio", "robot", SPOKEN[start : start + size], start_sample=start)
                start, turn = start + size, turn + 1
                await place.taken(turn)  # at the pace of the engine: nothing overflows
                await place.rig.settle()
            assert await robot.ask("close", "robot") == ("closed", "")
            assert place.ingest.counters == {
                "ingest_streams": 0, "ingest_packets": turn, "ingest_late": 0, "ingest_refused": 0
            }  # fmt: skip
            answers, _ = await hear(SPOKEN, [320])
            assert spans(place.rig.finals("robot")) == [(start, end) for _, start, end, *_ in answers]

    run(main())


def test_lost_packets_are_published_as_a_gap(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as place:
            robot = place.robot()
            robot.send("open", "a")
            robot.send("audio", "a", SPOKEN[:8000], start_sample=0)
            robot.send("audio", "a", SPOKEN[24_000:36_000], start_sample=24_000)
            await place.taken(2)
            assert [(gap.from_sample, gap.count, gap.reason) for gap in place.rig.of(Gap)] == [(8000, 16_000, "lost")]

    run(main())


def test_a_packet_that_overlaps_gives_what_is_new_in_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as place:
            robot = place.robot()
            robot.send("open", "a")
            for start in range(0, len(SPOKEN), 800):  # each begins with the 160 samples that ended the last
                begin = max(0, start - 160)
                robot.send("audio", "a", SPOKEN[begin : start + 800], start_sample=begin)
                await place.taken(start // 800 + 1)
                await place.rig.settle()
            assert await robot.reply() == ("opened", "")
            assert await robot.ask("close", "a") == ("closed", "")
            assert place.ingest.late == len(range(800, len(SPOKEN), 800))
            assert place.ingest.refused == 0
            assert place.rig.of(Gap) == []
            answers, _ = await hear(SPOKEN, [320])
            assert spans(place.rig.finals("a")) == [(start, end) for _, start, end, *_ in answers]

    run(main())


def test_packets_that_come_late_or_twice_are_left_out_and_refused_once_a_second(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as place:
            robot = place.robot()
            assert await robot.ask("open", "a") == ("opened", "")
            robot.send("audio", "a", SPOKEN[:16_000], start_sample=0)
            for _ in range(30):
                robot.send("audio", "a", SPOKEN[4000:4320], start_sample=4000)
            await place.refused(30)
            op, reason = await robot.reply()
            assert op == "refused"
            assert "sample 4000 came again; the next is 16000" in reason
            assert robot.silent
            await place.rig.clock.advance(1.1)
            assert (await robot.ask("audio", "a", SPOKEN[4000:4320], start_sample=4000))[0] == "refused"
            assert place.ingest.counters["ingest_late"] == place.ingest.counters["ingest_refused"] == 31
            assert place.rig.pipeline._streams["a"].total == 16_000

    run(main())


def test_packets_out_of_order_are_a_gap_and_the_late_one_is_left_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as place:
            robot = place.robot()
            assert await robot.ask("open", "a", sample_rate_hz=44_100) == ("opened", "")
            for start in (0, 882, 2646, 1764, 3528):
                robot.send("audio", "a", sound([(True, 20)])[:1].repeat(882), start_sample=start)
            assert (await robot.reply())[0] == "refused"
            await place.taken(4)
            assert [(gap.from_sample, gap.count) for gap in place.rig.of(Gap)] == [(640, 320)]
            assert await robot.ask("close", "a") == ("closed", "")
            assert place.rig.pipeline.totals()["sound_s"] == 0.1

    run(main())


# --- names and connections --------------------------------------------------------------------------------------------


def test_a_robot_that_starts_again_gets_its_stream_anew_behind_the_last_final(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as place:
            robot = place.robot()
            assert await robot.ask("open", "a") == ("opened", "")
            robot.send("audio", "a", sound([(False, 200), (True, 800)]), start_sample=0)
            robot.send("open", "a", sample_rate_hz=48_000)
            robot.send("audio", "a", np.zeros(960, np.int16), start_sample=0)  # without waiting to be let in
            assert await robot.reply() == ("opened", "")
            await place.taken(2)
            assert [final.reason for final in place.rig.finals("a")] == ["closed"]
            assert place.rig.events("a") == [("opened", "a"), ("closed", "a"), ("opened", "a")]
            assert place.rig.pipeline._streams["a"].total <= 320
            assert place.ingest.counters["ingest_streams"] == 1
            assert place.ingest.refused == 0

    run(main())


def test_opening_right_behind_a_close_waits_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path, hold=("voice",)) as place:
            robot = place.robot()
            assert await robot.ask("open", "a") == ("opened", "")
            robot.send("audio", "a", sound([(False, 200), (True, 800)]), start_sample=0)
            for op in ("close", "open", "open"):
                robot.send(op, "a")
            assert (await robot.reply())[1] == "stream 'a' is being opened: wait for `opened`"
            await place.rig.settle()
            assert robot.silent, "the final is not out"
            for _ in range(MOST_WAITING):
                robot.send("audio", "a", np.zeros(20, np.int16))
            robot.send("audio", "a", np.zeros(20, np.int16))
            assert "not open yet" in (await robot.reply())[1]
            place.rig.pool.release()
            assert [await robot.reply() for _ in range(2)] == [("closed", ""), ("opened", "")]
            await place.taken(1 + MOST_WAITING)
            assert place.rig.pipeline._streams["a"].total == 20 * MOST_WAITING

    run(main())


def test_a_name_another_connection_holds_is_refused_until_that_one_has_fallen_silent(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path, IngestConfig(takeover_s=2.0)) as place:
            first, second = place.robot(), place.robot()
            assert await first.ask("open", "a") == ("opened", "")
            await place.rig.clock.advance(1.9)
            first.send("audio", "a", sound([(False, 200), (True, 800)]), start_sample=0)
            await place.taken(1)
            await place.rig.clock.advance(1.9)
            op, reason = await second.ask("open", "a")
            assert op == "refused"
            assert "another connection's" in reason
            assert "another connection's" in (await second.ask("audio", "a", b"\0\0"))[1]
            await place.rig.clock.advance(0.2)
            assert await second.ask("open", "a") == ("opened", "")
            assert await first.reply() == ("closed", "another connection has taken it over")
            assert [final.stream for final in place.rig.finals()] == ["a"]
            assert "another connection's" in (await first.ask("audio", "a", b"\0\0"))[1]
            assert await second.ask("close", "a") == ("closed", "")

    run(main())


def test_a_robot_with_a_routing_id_of_its_own_is_known_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as place:
            robot = place.robot(b"kitchen-robot")
            assert await robot.ask("open", "a") == ("opened", "")
            robot.send("audio", "a", SPOKEN[:16_000], start_sample=0)
            await place.taken(1)
            robot.socket.close()
            again = place.robot(b"kitchen-robot")
            again.send("audio", "a", SPOKEN[20_000:32_000], start_sample=20_000)
            await place.taken(2)
            assert [(gap.from_sample, gap.count) for gap in place.rig.of(Gap)] == [(16_000, 4000)]
            assert await again.ask("close", "a") == ("closed", "")

    run(main())


def test_a_name_that_a_microphone_has_is_not_the_robots(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as place:
            place.rig.engine.open("mic")
            robot = place.robot()
            assert "open already" in (await robot.ask("open", "mic"))[1]
            assert "not open" in (await robot.ask("close", "mic"))[1]
            assert not place.ingest._guests

    run(main())


def test_a_stream_that_is_silent_for_long_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path, IngestConfig(idle_s=5.0)) as place:
            robot = place.robot()
            assert await robot.ask("open", "a") == ("opened", "")
            await place.rig.clock.advance(4)
            assert robot.silent
            await place.rig.clock.advance(3)
            assert await robot.reply() == ("closed", "")
            op, reason = await robot.ask("audio", "a", b"\0\0", start_sample=0)
            assert (op, reason) == ("refused", "stream 'a' is not open: send op open first")

    run(main())


def test_streams_by_the_thousand_end_at_the_limit(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path, IngestConfig(most_streams=20)) as place:
            robot = place.robot()
            said = [await robot.ask("open", f"s{number}") for number in range(30)]
            assert [op for op, _ in said] == ["opened"] * 20 + ["refused"] * 10
            assert "20 streams are open" in said[-1][1]
            assert await robot.ask("open", "s3") == ("opened", ""), "one that starts again is none more"
            assert await robot.ask("close", "s3") == ("closed", "")
            assert await robot.ask("open", "s29") == ("opened", "")

    run(main())


def test_an_engine_with_too_much_to_do_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with listening(tmp_path) as place:

            def open_(*_: Any, **__: Any) -> None:
                raise OverloadedError("too much to do")

            monkeypatch.setattr(place.rig.engine, "open", open_)
            robot = place.robot()
            assert await robot.ask("open", "a") == ("refused", "too much to do")
            monkeypatch.undo()
            assert await robot.ask("open", "a") == ("opened", "")

    run(main())
