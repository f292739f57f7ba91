"""Which worker computes which stream, and that moving loses nothing."""

from typing import Any

from fakes import Rig, run
from listening import SPOKEN, answers

from clser.engine.records import Status


async def talk(rig: Rig, streams: list[Any], from_ms: int, to_ms: int) -> None:
    for at in range(from_ms * 16, min(to_ms * 16, len(SPOKEN)), 800):
        for stream in streams:
            stream.push(SPOKEN[at : at + 800])
        await rig.clock.advance(0.05)


def loads(rig: Rig) -> list[int]:
    return [len(station.streams) for station in rig.pipeline._stations]


def undisturbed() -> Any:
    async def main() -> Any:
        async with Rig() as rig:
            stream = rig.engine.open("s0")
            await talk(rig, [stream], 0, 10_000)
            await stream.close()
            return answers(rig, "s0")

    return run(main())


def test_streams_spread_over_the_workers() -> None:
    async def main() -> None:
        async with Rig(workers=3) as rig:
            streams = [rig.engine.open(f"s{at}") for at in range(7)]
            assert sorted(loads(rig)) == [2, 2, 3]
            await streams[0].close()
            rig.engine.open("again")
            assert sorted(loads(rig)) == [2, 2, 3]

    run(main())


def test_the_streams_of_a_worker_that_is_gone_go_on_with_another_and_every_final_comes_once() -> None:
    expected = undisturbed()

    async def main() -> None:
        async with Rig(workers=2) as rig:
            streams = [rig.engine.open(f"s{at}") for at in range(4)]
            await talk(rig, streams, 0, 1_500)
            rig.pool.lose(0)
            assert loads(rig) == [0, 4]
            await talk(rig, streams, 1_500, 3_000)
            assert rig.of(Status)[-1].state == "degraded"
            rig.pool.come_back(0)
            await talk(rig, streams, 3_000, 10_000)
            for stream in streams:
                await stream.close()
            for at in range(4):
                assert answers(rig, f"s{at}") == expected

    run(main())


def test_when_it_is_back_quiet_streams_move_back_and_those_in_mid_speech_stay() -> None:
    expected = undisturbed()

    async def main() -> None:
        async with Rig(workers=2) as rig:
            streams = [rig.engine.open(f"s{at}") for at in range(6)]
            await talk(rig, streams, 0, 1_500)  # all are in the middle of a phrase
            rig.pool.lose(1)
            rig.pool.come_back(1)
            await talk(rig, streams, 1_500, 2_000)
            assert loads(rig) == [6, 0]
            await talk(rig, streams, 2_000, 10_000)
            assert loads(rig) == [3, 3]
            for stream in streams:
                await stream.close()
            for at in range(6):
                assert answers(rig, f"s{at}") == expected

    run(main())


def test_a_worker_that_is_late_hands_streams_to_one_that_is_not_and_they_do_not_come_back_at_once() -> None:
    async def main() -> None:
        async with Rig(workers=2) as rig:
            streams = [rig.engine.open(f"s{at}") for at in range(4)]
            slow = streams[0]._state.worker
            await talk(rig, streams, 0, 500)
            station = rig.pipeline._stations[slow]
            station.late_at_s = rig.clock.now_s  # as if it had been found late just now
            rig.pipeline._ladder.look = lambda *_: False

            from clser.engine import placing

            moved = placing.rebalance(rig.pipeline._stations, rig.clock.now_s)
            assert [stream.name for stream in moved] == ["s0"]
            rig.engine.open("new")
            await rig.clock.advance(1.0)
            assert loads(rig)[slow] == 1
            await rig.clock.advance(placing.WARY_S + 1)
            assert loads(rig)[slow] == 2

    run(main())


def test_a_lone_worker_keeps_its_streams() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("s0")
            await talk(rig, [stream], 0, 1_500)
            rig.pool.lose()
            assert loads(rig) == [1]
            rig.pool.come_back()
            await talk(rig, [stream], 1_500, 10_000)
            await stream.close()
            assert answers(rig, "s0") == undisturbed_in_loop

    undisturbed_in_loop = undisturbed()
    run(main())
