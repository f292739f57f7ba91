"""Workers that die, are slow, or are gone for good: finals are neither lost nor doubled, and whoever feeds is told."""

import asyncio
import random
from typing import Any

import pytest
from fakes import Rig, run, sound
from listening import LONG, SHORT, SPOKEN, answers, hear, packets, turns, unharmed, whole

from clser.engine import jobs
from clser.engine.errors import FailedError
from clser.engine.pool import Listener
from clser.engine.records import Gap, Result, Status


@pytest.mark.parametrize("seed", range(25))
def test_finals_are_neither_lost_nor_doubled_nor_changed_when_workers_die(seed: int) -> None:
    chance = random.Random(seed)

    async def main() -> None:
        async with Rig(hold=("vad", "voice"), **SHORT) as rig:
            stream = rig.engine.open("a")
            left = packets(LONG, [chance.randint(500, 4000)])
            up, deaths = True, 0
            while left or rig.pool.under_way or not up:
                await asyncio.sleep(0)
                choice = chance.random()
                if left and choice < 0.4 and stream._state.backlog < 48_000:
                    stream.push(left.pop(0))
                elif not up and choice < 0.8:
                    rig.pool.come_back()
                    up = True
                elif up and choice > 0.93 and deaths < 12:
                    late = list(rig.pool.under_way)
                    rig.pool.lose()
                    for job in late:
                        rig.pool.answer_late(job)
                    up, deaths = False, deaths + 1
                elif rig.pool.under_way:
                    rig.pool.answer(chance.choice(rig.pool.under_way))
            rig.pool.release()
            await stream.close()
            assert deaths >= 3
            assert answers(rig, "a") == unharmed()[0]
            assert turns(rig, "a") == unharmed()[1]
            assert rig.pipeline.counters["gaps"] == 0

    run(main())


@pytest.mark.parametrize("lane", ["vad", "voice"])
def test_a_dead_workers_last_words_are_not_taken_for_its_successors(lane: Any) -> None:
    async def main() -> None:
        async with Rig(hold=("vad", "voice"), **SHORT) as rig:
            stream = rig.engine.open("a")
            for packet in packets(LONG[:20_000], [1600]):
                stream.push(packet)
                await rig.settle()
                for job in [job for job in rig.pool.under_way if job.batch.lane != lane]:
                    rig.pool.answer(job)
                while lane == "voice" and rig.pool.under_way and rig.pool.under_way[-1].batch.lane == "vad":
                    rig.pool.answer(rig.pool.under_way[-1])
                if not any(job.batch.lane == lane for job in rig.pool.under_way):
                    continue
                (old,) = [job for job in rig.pool.under_way if job.batch.lane == lane]
                rig.pool.lose()
                rig.pool.come_back()
                await rig.settle()
                rig.pool.answer_late(old)
            rig.pool.release()
            for packet in packets(LONG[20_000:], [1600]):
                await stream.feed(packet)
            await stream.close()
            assert rig.pipeline.counters["workers_lost"] > 3
            assert (answers(rig, "a"), turns(rig, "a")) == unharmed()

    run(main())


def test_a_worker_that_dies_while_another_warms_up_is_no_end() -> None:
    async def main() -> None:
        rig = Rig(workers=2)
        start = rig.pool.start

        async def slowly(listener: Listener) -> jobs.Ready:
            ready = await start(listener)
            rig.pool.lose(0)
            rig.pool.come_back(0)
            return ready

        rig.pool.start = slowly  # type: ignore[method-assign]
        async with rig:
            assert [event for event, _ in rig.events()] == ["worker_lost", "worker_back", "ready"]
            assert rig.pipeline.state == "ready"

    run(main())


def test_losing_a_worker_is_published_and_so_is_its_return() -> None:
    async def main() -> None:
        async with Rig(workers=2) as rig:
            rig.pool.lose(1)
            assert rig.pipeline.state == "degraded"
            rig.pool.come_back(1)
            said = [(s.event, s.state) for s in rig.of(Status)]
            assert ("worker_lost", "degraded") in said
            assert said[-1] == ("worker_back", "ready")
            assert rig.pipeline.totals()["workers_lost"] == 1

    run(main())


def test_streams_of_other_workers_go_on_while_one_is_away() -> None:
    async def main() -> None:
        async with Rig(workers=2) as rig:
            a, b = rig.engine.open("a"), rig.engine.open("b")
            rig.pool.lose(a._state.worker)
            a.push(SPOKEN[:16_000])
            await b.feed(SPOKEN)
            await b.close()
            assert answers(rig, "b") == whole()[0]
            assert rig.of(Result, "a") == []
            rig.pool.come_back(a._state.worker)
            await a.feed(SPOKEN[16_000:])
            await a.close()
            assert answers(rig, "a") == whole()[0]

    run(main())


def test_sound_that_comes_while_the_worker_is_away_for_long_is_a_gap_and_all_before_it_is_answered() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            packet = sound([(True, 100)])
            for _ in range(10):
                stream.push(packet)
                await rig.settle()
            rig.pool.lose()
            for _ in range(600):  # a minute: much more than the ring holds
                stream.push(packet)
            rig.pool.come_back()
            await rig.settle()
            await stream.feed(SPOKEN)
            await stream.close()
            assert [f.reason for f in rig.finals()] == ["gap", "silence", "silence"]
            first = rig.finals()[0]
            (gap,) = rig.of(Gap)
            assert first.start_sample == 0
            assert first.end_sample <= gap.from_sample
            assert first.end_sample > 4 * 16_000, "what was waiting when the overflow began is in it"
            assert gap.from_sample + gap.count + len(SPOKEN) == stream.next_sample

    run(main())


@pytest.mark.parametrize("lanes", [("vad",), ("voice",), ("vad", "voice")])
def test_a_slow_worker_makes_whoever_feeds_wait_and_nothing_is_lost(lanes: tuple[Any, ...]) -> None:
    async def main() -> None:
        async with Rig(hold=lanes) as rig:
            stream = rig.engine.open("a")
            pcm = sound([(True, 3000), (False, 500)] * 12, 3)

            async def feed() -> None:
                for packet in packets(pcm, [1600]):
                    await stream.feed(packet)

            task = asyncio.create_task(feed())
            await rig.settle()
            assert not task.done()
            assert stream._state.backlog <= 32_000 + 1600
            assert stream.next_sample < 8 * 16_000
            rig.pool.release()
            await task
            await stream.close()
            assert answers(rig, "a") == run_elsewhere
            assert rig.of(Gap) == []

    pcm = sound([(True, 3000), (False, 500)] * 12, 3)
    run_elsewhere = run(hear(pcm, [320]))[0]
    assert len(run_elsewhere) == 12
    run(main())


@pytest.mark.parametrize("lanes", [("vad",), ("voice",), ("vad", "voice")])
def test_a_live_push_never_waits_and_what_overflows_is_one_gap(lanes: tuple[Any, ...]) -> None:
    async def main() -> None:
        async with Rig(hold=lanes) as rig:
            stream = rig.engine.open("a")
            for packet in packets(sound([(True, 40_000)]), [320]):
                stream.push(packet)
                await asyncio.sleep(0)
            rig.pool.release()
            await rig.settle()
            stream.push(sound([(True, 1000)], 9))
            await stream.close()
            (gap,) = rig.of(Gap)
            assert gap.reason == "overflow"
            assert gap.count > 20 * 16_000
            assert rig.pipeline.counters["lost_samples"] == gap.count
            before, after = rig.finals()
            assert before.reason == "gap"
            assert before.end_sample <= gap.from_sample
            assert after.start_sample >= gap.from_sample + gap.count
            assert stream.next_sample == 41 * 16_000

    run(main())


def test_when_the_workers_are_gone_for_good_everybody_is_told() -> None:
    rig = Rig(hold=("voice",))

    async def main() -> None:
        async with rig:
            stream = rig.engine.open("a")
            stream.push(sound([(True, 900)]))
            await rig.settle()

            async def read() -> list[Result]:
                return [result async for result in stream.results()]

            tasks = [asyncio.create_task(coroutine) for coroutine in (read(), rig.engine.run_until_failed())]
            closing = asyncio.create_task(stream.close())
            await rig.settle()
            rig.pool.fail(FailedError("gone for good"))
            await rig.clock.advance(1)
            for task in tasks:
                assert task.done()
                with pytest.raises(FailedError, match="gone for good"):
                    task.result()
            with pytest.raises(FailedError, match="gone for good"):
                closing.result()
            assert ("failed", "_engine") in rig.events()
            with pytest.raises(FailedError, match="gone for good"):
                stream.push(SPOKEN)
            with pytest.raises(FailedError, match="gone for good"):
                await stream.feed(SPOKEN)

    with pytest.raises(FailedError, match="gone for good"):
        run(main())
    assert rig.pool.stopped
