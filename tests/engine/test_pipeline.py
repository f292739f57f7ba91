"""The whole engine on fake workers and manual time: what comes out must not depend on how the work was cut up or went wrong."""

import asyncio
import functools
import itertools
import random
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fakes import VOICE_FRAME, FakePool, Rig, Script, run, sound, voice_logits
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.engine.errors import FailedError, GivenError
from clser.engine.fuse import FuseConfig, Judge
from clser.engine.records import Gap, Result, Samples, Speech, Status

TALK: Script = [(False, 600), (True, 1500), (False, 500), (True, 120), (False, 500), (True, 2000), (False, 500)]
SPOKEN = sound(TALK)
LONG = sound([(False, 300), (True, 3200), (False, 400), (True, 900), (False, 400), (True, 1500), (False, 200)], 5)
SHORT = {"segment": {"longest_ms": 2000, "shrink_from_ms": 1500, "cut_search_ms": 500}}

Answer = tuple[int, int, int, str, dict[str, float], float, float]


def answers(rig: Rig, stream: str) -> list[Answer]:
    return [
        (r.utterance, r.start_sample, r.end_sample, r.reason, r.emotion.probabilities, r.arousal, r.valence)
        for r in rig.finals(stream)
    ]


def turns(rig: Rig, stream: str) -> list[tuple[int, str, int, str]]:
    return [(m.utterance, m.event, m.sample, m.reason) for m in rig.of(Speech, stream)]


def packets(pcm: Samples, sizes: list[int]) -> list[Samples]:
    """The sound in packets of these sizes, over and over."""
    out, at, turn = [], 0, 0
    while at < len(pcm):
        out.append(pcm[at : at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
    return out


async def hear(pcm: Samples, sizes: list[int], **sections: Any) -> tuple[list[Answer], list[tuple[int, str, int, str]]]:
    async with Rig(**sections) as rig:
        stream = rig.engine.open("a")
        for packet in packets(pcm, sizes):
            await stream.feed(packet)
        await stream.close()
        return answers(rig, "a"), turns(rig, "a")


# What comes out when nothing is odd, to compare with.
Outcome = tuple[list[Answer], list[tuple[int, str, int, str]]]


@functools.cache
def alone(seed: int) -> Outcome:
    return apart(hear(sound(TALK, seed), [320]))


def whole() -> Outcome:
    return alone(1)


@functools.cache
def unharmed() -> Outcome:
    return apart(hear(LONG, [320], **SHORT))


def apart(main: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run on a loop of its own, in a thread, since there may be a loop running already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run, main).result()


# --- what is heard ----------------------------------------------------------------------------------------------------


def test_each_utterance_gets_its_final_and_too_little_speech_is_withdrawn() -> None:
    finals, said = run(hear(SPOKEN, [320]))
    assert [(utterance, reason) for utterance, _, _, reason, *_ in finals] == [(1, "silence"), (3, "silence")]
    assert [(number, event, reason) for number, event, _, reason in said] == [
        (1, "started", ""),
        (1, "ended", "silence"),
        (2, "started", ""),
        (2, "ended", "too_short"),
        (3, "started", ""),
        (3, "ended", "silence"),
    ]
    first_ms = finals[0][1] / 16, finals[0][2] / 16
    assert first_ms == pytest.approx((300, 2250), abs=64)


def test_a_finals_probabilities_are_the_models_after_exactly_the_utterances_sound() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await stream.feed(SPOKEN)
            await stream.close()
            judge = Judge(FuseConfig(), (await FakePool().start(rig.pipeline)).voice)
            assert len(rig.finals()) == 2
            for final in rig.finals():
                heard = SPOKEN[final.start_sample : final.end_sample]
                assert final.voice.probabilities == judge.opinion(voice_logits(heard)).probabilities

    run(main())


def test_revisions_grow_and_the_final_is_the_last_word() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            for packet in packets(SPOKEN, [320]):
                await stream.feed(packet)
                await rig.settle()
            await stream.close()
            for number in (1, 3):
                said = [r for r in rig.of(Result) if r.utterance == number]
                assert [r.revision for r in said] == list(range(1, len(said) + 1))
                assert [r.stage for r in said][-1] == "final"
                assert {r.stage for r in said} == {"partial", "tentative", "final"}
                assert [r.stage for r in said].count("final") == 1
            finals = [r for r in rig.of(Result) if r.stage == "final"]
            tentatives = {r.utterance: r for r in rig.of(Result) if r.stage == "tentative"}
            assert all(tentatives[f.utterance].emotion == f.emotion for f in finals)
            assert all(r.ttl_ms is None for r in finals)
            assert all(r.ttl_ms for r in rig.of(Result) if r.stage != "final")

    run(main())


@settings(max_examples=30)
@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) >= 60 * len(sizes)))
def test_answers_do_not_depend_on_the_packets(sizes: list[int]) -> None:
    assert run(hear(SPOKEN, sizes)) == whole()


def test_a_whole_recording_may_be_one_packet() -> None:
    long = sound([(True, 1000), (False, 600)] * 30)  # longer than the ring
    assert run(hear(long, [len(long)])) == run(hear(long, [320]))


@pytest.mark.parametrize("seed", range(15))
def test_answers_do_not_depend_on_batches_or_on_when_they_are_computed(seed: int) -> None:
    """Three streams at once, whose batches come back late and in any order across lanes and workers."""
    chance, workers = random.Random(seed), seed % 3 + 1

    async def main() -> None:
        async with Rig(workers=workers, hold=("vad", "voice")) as rig:
            names = ["a", "b", "c"]
            streams = [rig.engine.open(name) for name in names]
            left = [packets(sound(TALK, talk), [chance.randint(100, 5000)]) for talk, _ in enumerate(names)]
            while any(left) or rig.pool.under_way:
                await asyncio.sleep(0)
                which = chance.randrange(3)
                if left[which] and chance.random() < 0.5 and streams[which]._state.backlog < 32_000:
                    streams[which].push(left[which].pop(0))
                elif rig.pool.under_way:
                    rig.pool.answer(chance.choice(rig.pool.under_way))
            rig.pool.release()
            for stream in streams:
                await stream.close()
            for talk, name in enumerate(names):
                assert (answers(rig, name), turns(rig, name)) == alone(talk)
            totals = rig.pipeline.totals()
            assert totals["frames_entered"] == totals["frames_needed"] > 0
            assert totals["gaps"] == 0

    run(main())


def test_every_frame_enters_the_model_once() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            for packet in packets(SPOKEN, [160]):
                await stream.feed(packet)
            await stream.close()
            totals = rig.pipeline.totals()
            assert totals["frames_entered"] == totals["frames_needed"]
            assert totals["frames_entered"] == sum(row.frames for row in rig.pool.rows("voice"))
            heard = sum((f.end_sample - f.start_sample) // VOICE_FRAME for f in rig.finals())
            withdrawn = totals["frames_entered"] - heard
            assert 0 <= withdrawn < 50, "only the withdrawn utterance was heard beside the finals"

    run(main())


def test_a_voice_that_never_stops_is_cut_and_goes_on() -> None:
    finals, said = run(hear(sound([(True, 7000), (False, 400)]), [320], **SHORT))
    reasons = [reason for _, _, _, reason, *_ in finals]
    assert len(reasons) >= 4
    assert set(reasons[:-1]) == {"longest"}
    for before, after in itertools.pairwise(finals):
        assert before[2] - 8000 <= after[1] <= before[2]
        assert after[1] > before[1]
    assert finals == run(hear(sound([(True, 7000), (False, 400)]), [3333], **SHORT))[0]
    assert len(said) == 2 * len(finals)


def test_closing_fills_up_the_last_frame_so_that_every_sample_is_heard() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await stream.feed(sound([(False, 500), (True, 1000)])[:-100])
            await stream.close()
            (final,) = rig.finals()
            assert final.reason == "closed"
            assert final.end_sample == 24_000 - 100, "the filling is not sound"
            assert sum(row.frames for row in rig.pool.rows("vad")) == -(-23_900 // 512)

    run(main())


def test_a_stream_without_sound_closes() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await stream.close()
            assert rig.of(Result) == []
            assert rig.events("a") == [("opened", "a"), ("closed", "a")]

    run(main())


# --- many streams -----------------------------------------------------------------------------------------------------


def test_streams_that_get_sound_together_are_computed_together() -> None:
    async def main() -> None:
        async with Rig() as rig:
            streams = [rig.engine.open(f"s{number}") for number in range(20)]
            for stream in streams:
                stream.push(sound([(True, 64)]))
            await rig.settle()
            (_, first), *_ = rig.pool.batches
            assert len(first.rows) == 20

    run(main())


def test_streams_are_spread_over_the_workers() -> None:
    async def main() -> None:
        async with Rig(workers=3) as rig:
            for number in range(9):
                rig.engine.open(f"s{number}")
            for stream in rig.pipeline._streams.values():
                stream_count = sum(other.worker == stream.worker for other in rig.pipeline._streams.values())
                assert stream_count == 3

    run(main())


def test_slots_are_used_again_and_start_afresh() -> None:
    async def main() -> None:
        async with Rig() as rig:
            slots = []
            for name in ("a", "b", "c"):
                stream = rig.engine.open(name)
                slots.append(stream._state.slot)
                await stream.feed(SPOKEN)
                await stream.close()
                assert (answers(rig, name), turns(rig, name)) == whole()
            assert slots == [0, 0, 0]
            kept, given_up = rig.engine.open("kept"), rig.engine.open("given_up")
            await given_up.close()
            assert kept._state.slot != rig.engine.open("new")._state.slot == given_up._state.slot

    run(main())


def test_a_name_can_be_taken_again_once_its_stream_is_closed() -> None:
    async def main() -> None:
        async with Rig() as rig:
            first = rig.engine.open("a")
            with pytest.raises(GivenError, match="open already"):
                rig.engine.open("a")
            await first.close()
            rig.engine.open("a")
            await first.close()
            assert not rig.engine.open("b").closed
            assert "a" in rig.pipeline._streams

    run(main())


@pytest.mark.parametrize("name", ["", "_engine", "_x", "a/b", "a b", "x" * 65, "é", "a\n"])
def test_names_that_would_not_do_as_topics_are_refused(name: str) -> None:
    async def main() -> None:
        async with Rig() as rig:
            with pytest.raises(GivenError, match="stream"):
                rig.engine.open(name)
            assert rig.pipeline.streams == 0

    run(main())


def test_finals_go_before_what_can_wait() -> None:
    async def main() -> None:
        async with Rig(hold=("voice",)) as rig:
            busy, *others = [rig.engine.open(f"s{number}") for number in range(4)]
            busy.push(sound([(True, 500)]))
            await rig.settle()
            for other in others[:2]:
                other.push(sound([(True, 600)]))
                await rig.settle()
            others[2].push(sound([(True, 600), (False, 400)]))
            await rig.settle()
            rig.pool.answer(rig.pool.under_way[0])
            await rig.settle()
            rows = rig.pool.batches[-1][1].rows
            assert rows[0].slot == others[2]._state.slot
            assert {row.slot for row in rows} >= {other._state.slot for other in others}

    run(main())


def test_an_answer_that_a_newer_one_overtook_is_not_given() -> None:
    async def main() -> None:
        async with Rig(hold=("voice",)) as rig:
            stream = rig.engine.open("a")
            for packet in packets(sound([(False, 500), (True, 2000)]), [1600]):
                stream.push(packet)
                await rig.settle()
            assert rig.of(Result) == []
            rig.pool.release()
            await rig.settle()
            assert len(rig.of(Result)) == 1
            assert rig.pipeline.totals()["replaced"] >= 3

    run(main())


def test_an_utterance_withdrawn_while_it_waits_for_the_model_harms_nobody() -> None:
    async def main() -> None:
        async with Rig(hold=("voice",)) as rig:
            busy, other = rig.engine.open("busy"), rig.engine.open("other")
            busy.push(sound([(True, 700)]))
            await rig.settle()
            for pcm in (sound([(False, 512), (True, 128)]), sound([(False, 1000)])):
                other.push(pcm)
                await rig.settle()
            rig.pool.release()
            await rig.settle()
            assert rig.pipeline.counters["withdrawn"] == 1
            await other.feed(SPOKEN)
            await other.close()
            assert len(rig.finals("other")) == 2

    run(main())


# --- workers that die -------------------------------------------------------------------------------------------------


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
    async def main() -> None:
        async with Rig(hold=("voice",)) as rig:
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
            assert closing.done()
            assert ("failed", "_engine") in rig.events()
            with pytest.raises(FailedError, match="gone for good"):
                stream.push(SPOKEN)
            with pytest.raises(FailedError, match="gone for good"):
                await stream.feed(SPOKEN)
        assert rig.pool.stopped

    run(main())


# --- where the sound breaks off ---------------------------------------------------------------------------------------


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
                stream.push(SPOKEN[:1000], start_sample=500)
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


# --- times and counters -----------------------------------------------------------------------------------------------


def test_results_say_when_their_sound_was_captured() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            start_us = rig.clock.unix_us() - 1_000_000
            at = 0
            for packet in packets(SPOKEN, [800]):
                at += len(packet)
                await stream.feed(packet, captured_unix_us=start_us + at * 1_000_000 // 16_000)
            await stream.close()
            for result in rig.of(Result):
                expected = start_us + result.end_sample * 1_000_000 // 16_000
                assert abs(result.captured_unix_us - expected) <= 1

    run(main())


def test_timings_add_up_to_the_time_since_the_capture() -> None:
    async def main() -> None:
        async with Rig(hold=("vad", "voice")) as rig:
            stream = rig.engine.open("a")
            stream.push(sound([(True, 1000), (False, 400)]), captured_unix_us=rig.clock.unix_us() - 20_000)
            for _ in range(12):
                await rig.clock.advance(0.05)
                for job in tuple(rig.pool.under_way):
                    rig.pool.answer(job)
            (final,) = rig.finals()
            timing = final.timing_ms
            assert min(timing.capture, timing.vad, timing.queue, timing.infer, timing.fuse) >= 0
            assert timing.vad > 0
            assert timing.infer >= 50

    run(main())


def test_counters_survive_the_streams() -> None:
    async def main() -> None:
        async with Rig() as rig:
            for name in ("a", "b"):
                stream = rig.engine.open(name)
                await stream.feed(SPOKEN)
                await stream.close()
            totals = rig.pipeline.totals()
            assert totals["streams"] == 0
            assert totals["finals"] == 4
            assert totals["withdrawn"] == 2
            assert totals["sound_s"] == pytest.approx(2 * len(SPOKEN) / 16_000, abs=1e-3)
            assert totals["frames_entered"] == totals["frames_needed"]
            assert totals["backlog_s"] == 0

    run(main())


def test_the_heartbeat_carries_the_counters() -> None:
    async def main() -> None:
        async with Rig() as rig:
            await rig.clock.advance(3.05)
            beats = [s for s in rig.of(Status) if s.event == "heartbeat"]
            assert len(beats) == 3
            assert {"streams", "finals", "backlog_s", "loop_lag_ms_p99", "rss_mb"} <= set(beats[-1].counters)
            assert beats[-1].counters["rss_mb"] > 1
            assert [s.seq for s in rig.of(Status)] == list(range(1, len(rig.of(Status)) + 1))

    run(main())
