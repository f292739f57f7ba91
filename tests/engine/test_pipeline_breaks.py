"""Where the sound breaks off: gaps, muting, packets that stop coming, streams of zeros."""

import asyncio

import numpy as np
import pytest
from fakes import Rig, run, sound
from listening import SPOKEN, whole

from clser.engine.errors import GivenError
from clser.engine.records import Gap


def test_a_gap_ends_what_is_open_moves_the_index_on_and_starts_the_networks_anew() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await stream.feed(sound([(False, 500), (True, 1000)]))
            stream.push(SPOKEN[:100], start_sample=10 * 16_000)
            await stream.feed(SPOKEN[100:])
            await stream.close()
            (gap,) = rig.of(Gap)
            assert (gap.from_sample, gap.count, gap.reason) == (24_000, 160_000 - 24_000, "lost")
            first, *rest = rig.finals()
            assert first.reason == "gap"
            assert first.end_sample <= gap.from_sample
            shifted = [(f.start_sample - 160_000, f.end_sample - 160_000) for f in rest]
            assert shifted == [(start, end) for _, start, end, *_ in whole()[0]]
            assert [f.emotion.probabilities for f in rest] == [p for *_, p, _, _ in whole()[0]]
            assert sum(row.fresh for row in rig.pool.rows("vad")) == 2

    run(main())


def test_a_gap_longer_than_anything_that_is_kept_loses_nothing_before_it() -> None:
    async def main() -> None:
        async with Rig(hold=("vad",)) as rig:
            stream = rig.engine.open("a")
            stream.push(sound([(False, 500), (True, 1000)]))
            for hours in (1, 2):
                stream.push(sound([(True, 500)], hours), start_sample=hours * 3600 * 16_000)
            rig.pool.release()
            await stream.close()
            assert [f.reason for f in rig.finals()] == ["gap", "gap", "closed"]
            assert [f.start_s for f in rig.finals()][1:] == [3600.0, 7200.0]

    run(main())


def test_a_gap_is_no_backlog() -> None:
    async def main() -> None:
        async with Rig(hold=("vad",)) as rig:
            stream = rig.engine.open("a")
            stream.push(sound([(True, 1000)]))
            stream.push(sound([(True, 1000)]), start_sample=60 * 16_000)
            stream.push(sound([(True, 1000)]))
            rig.pool.release()
            await stream.close()
            assert [gap.reason for gap in rig.of(Gap)] == ["lost"]

    run(main())


def test_a_sample_that_comes_again_is_refused() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            stream.push(SPOKEN[:1000])
            with pytest.raises(GivenError, match="sample 500 came again; the next is 1000"):
                stream.push(SPOKEN[500:1000], start_sample=500)
            stream.push(SPOKEN[1000:2000], start_sample=1000)
            assert rig.of(Gap) == []

    run(main())


def test_while_muted_sound_counts_but_is_not_heard() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await stream.feed(sound([(False, 500), (True, 1000)]))
            stream.mute(True)
            await rig.settle()
            assert [f.reason for f in rig.finals()] == ["muted"]
            await stream.feed(sound([(True, 3000)]))
            stream.mute(False)
            await stream.feed(sound([(False, 500), (True, 1000), (False, 500)], 4))
            await stream.close()
            first, second = rig.finals()
            assert first.end_sample <= 24_000
            assert second.start_s == pytest.approx(4.7, abs=0.064)
            assert stream.next_sample == 16_000 * 6.5

    run(main())


def test_packets_that_stop_coming_in_mid_speech_end_the_utterance() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await stream.feed(sound([(True, 1000)]))
            await rig.clock.advance(0.9)
            assert rig.finals() == []
            await rig.clock.advance(0.3)
            assert [f.reason for f in rig.finals()] == ["idle"]
            await rig.clock.advance(5)
            await stream.feed(sound([(True, 1000), (False, 500)], 2))
            await stream.close()
            assert [f.reason for f in rig.finals()] == ["idle", "silence"]
            assert rig.of(Gap) == []

    run(main())


def test_waiting_for_the_engine_is_not_being_idle() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await stream.feed(sound([(True, 900)]))
            await rig.settle()
            rig.pool.lose()
            feeding = asyncio.create_task(stream.feed(sound([(True, 4000)])))
            await rig.settle()
            assert not feeding.done()
            await rig.clock.advance(3)
            rig.pool.come_back()
            await feeding
            await stream.close()
            assert [f.reason for f in rig.finals()] == ["closed"]

    run(main())


def test_waiting_for_the_emotion_model_is_not_being_idle_either() -> None:
    async def main() -> None:
        async with Rig(hold=("voice",)) as rig:
            stream = rig.engine.open("a")
            feeding = asyncio.create_task(stream.feed(sound([(True, 6000)])))
            await rig.settle()
            assert not feeding.done()
            await rig.clock.advance(3)
            rig.pool.release()
            await feeding
            await stream.close()
            assert [f.reason for f in rig.finals()] == ["closed"]

    run(main())


def test_a_stream_of_zeros_is_remarked_on_once() -> None:
    async def main() -> None:
        async with Rig() as rig:
            zeros, quiet = rig.engine.open("zeros"), rig.engine.open("quiet")
            for _ in range(3):
                await zeros.feed(np.zeros(4 * 16_000, np.int16))
                await quiet.feed(sound([(False, 4000)]))
                await rig.clock.advance(0.2)
            assert [stream for event, stream in rig.events() if event == "silent"] == ["zeros"]

    run(main())
