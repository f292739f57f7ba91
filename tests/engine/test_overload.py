"""What is given up when there is too much to do, and that it is taken back."""

from itertools import pairwise
from typing import Any

import pytest
from fakes import Rig, run
from hypothesis import given
from hypothesis import strategies as st
from listening import SPOKEN

from clser.engine.errors import OverloadedError
from clser.engine.overload import ALONE, DROP, PACES, REFUSE, STEPS, Ladder, OverloadConfig
from clser.engine.records import Result, Status

CONFIG = OverloadConfig()


def climb(lates: list[float], config: OverloadConfig = CONFIG) -> list[tuple[float, int]]:
    """(second, step) of each step, seen ten times a second."""
    ladder, steps = Ladder(), []
    for at, late_ms in enumerate(lates):
        if ladder.look(config, at / 10, late_ms):
            steps.append((at / 10, ladder.step))
    return steps


def test_up_step_by_step_and_down_again() -> None:
    steps = climb([0.0] * 10 + [900.0] * 20 + [10.0] * 90)
    assert [step for _, step in steps] == [1, 2, 3, 2, 1, 0]
    up = [at for at, _ in steps[:3]]
    down = [at for at, _ in steps[3:]]
    assert up[0] - 1.0 == pytest.approx(CONFIG.up_s, abs=0.11)
    assert [b - a for a, b in pairwise(up)] == pytest.approx([CONFIG.up_s] * 2, abs=0.11)
    assert down[0] - 3.0 == pytest.approx(CONFIG.down_s, abs=0.11)
    assert down[2] - 3.0 <= 10.0


def test_a_moments_lateness_is_no_overload() -> None:
    assert climb([0.0, 900.0, 900.0, 0.0] * 50) == []


@given(st.lists(st.sampled_from([0.0, 50.0, 200.0, 299.0, 301.0, 5000.0]), max_size=200))
def test_steps_are_single_and_stay_on_the_ladder(lates: list[float]) -> None:
    before = 0
    for _, step in climb(lates):
        assert abs(step - before) == 1
        assert 0 <= step <= REFUSE
        before = step
    assert len(STEPS) == len(PACES) == REFUSE + 1


def test_a_pace_that_is_handed_out_once_follows_the_ladder() -> None:
    ladder = Ladder()
    pace = ladder.pace
    for at in range(40):
        ladder.look(CONFIG, at / 10, 1000.0)
    assert ladder.pace is pace
    assert pace == PACES[REFUSE]


def test_after_an_overload_streams_come_in_one_by_one_for_a_while() -> None:
    ladder = Ladder()
    assert all(ladder.admits(CONFIG, 0.0) for _ in range(1000))
    for at in range(24):
        ladder.look(CONFIG, at / 10, 1000.0)
    assert ladder.step == REFUSE
    assert not ladder.admits(CONFIG, 2.4)
    for at in range(24, 120):
        ladder.look(CONFIG, at / 10, 0.0)
    assert ladder.step == 0
    admitted = sum(ladder.admits(CONFIG, 12.0 + at / 100) for at in range(1000))
    assert admitted == pytest.approx(10 * CONFIG.admit_per_s, abs=1)
    assert all(ladder.admits(CONFIG, 12.0 + CONFIG.wary_s + at / 1000) for at in range(100))


def test_sound_that_waits_outside_counts_as_late() -> None:
    async def main() -> None:
        async with Rig() as rig:
            rig.engine.waits.append(lambda: 1.0)
            await rig.clock.advance(2.6)
            assert rig.pipeline.totals()["overload_step"] == REFUSE

    run(main())


async def speak(rig: Rig, stream: Any, times: int = 1) -> None:
    for _ in range(times):
        for at in range(0, len(SPOKEN), 800):
            stream.push(SPOKEN[at : at + 800])
            await rig.clock.advance(0.05)


def test_an_engine_that_cannot_keep_up_says_so_at_every_step_and_loses_no_final() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await speak(rig, stream)
            rig.pool.held |= {"voice", "vad"}
            for at in range(0, 16_000 * 5 // 2, 800):
                stream.push(SPOKEN[at : at + 800])
                await rig.clock.advance(0.05)
            assert [m.detail[:9] for m in rig.of(Status) if m.event == "overload"] == [
                "step 1 of", "step 2 of", "step 3 of", "step 4 of",
            ]  # fmt: skip
            assert rig.of(Status)[-1].state == "degraded"
            with pytest.raises(OverloadedError, match="try again later"):
                rig.engine.open("b")
            assert rig.pipeline.totals()["streams_refused"] == 1
            rig.pool.release()
            for at in range(16_000 * 5 // 2, len(SPOKEN), 800):
                stream.push(SPOKEN[at : at + 800])
                await rig.clock.advance(0.05)
            await rig.clock.advance(9.0)
            assert [m.event for m in rig.of(Status) if m.event in ("overload", "relief")] == ["overload"] * 4 + [
                "relief"
            ] * 4
            assert rig.of(Status)[-1].state == "ready"
            assert rig.pipeline.totals()["overload_step"] == 0
            rig.engine.open("b")
            with pytest.raises(OverloadedError):  # those who were refused come in one by one
                rig.engine.open("c")
            await rig.clock.advance(0.6)
            rig.engine.open("c")
            await stream.close()
            assert len(rig.finals("a")) == 4
            assert rig.of(Result)[-1].final

    run(main())


def partials(step: int) -> tuple[int, list[Result]]:
    """(partials, finals) of one who speaks while the ladder stands at `step`."""

    async def main() -> tuple[int, list[Result]]:
        async with Rig(overload={"down_s": 1e6}) as rig:
            rig.pipeline._ladder.step = step
            pace = rig.pipeline._ladder.pace
            pace.step_factor, pace.partial_factor = PACES[step].step_factor, PACES[step].partial_factor
            if step < REFUSE:
                stream = rig.engine.open("a")
                await speak(rig, stream)
                await stream.close()
            return sum(result.stage == "partial" for result in rig.of(Result)), rig.finals()

    return run(main())


def test_each_step_answers_less_and_every_step_ends_with_the_same_finals() -> None:
    normal, finals = partials(0)
    wide, same = partials(1)
    alone, unwritten = partials(ALONE)
    none, still = partials(DROP)
    assert normal > 8
    assert normal / 2 - 2 <= wide <= normal / 2 + 2
    assert alone == wide
    assert none == 0
    for others in (same, unwritten, still):
        assert [(f.utterance, f.start_sample, f.end_sample, f.emotion) for f in others] == [
            (f.utterance, f.start_sample, f.end_sample, f.emotion) for f in finals
        ]


def test_a_file_that_is_read_as_fast_as_can_be_is_no_overload() -> None:
    async def main() -> None:
        async with Rig(hold=("voice",)) as rig:
            import asyncio

            stream = rig.engine.open("a")
            feeding = asyncio.create_task(stream.feed(SPOKEN))
            await rig.clock.advance(5.0)
            assert rig.pipeline.totals()["overload_step"] == 0
            rig.pool.release()
            await feeding
            await stream.close()

    run(main())
