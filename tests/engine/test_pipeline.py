"""The whole engine on fake workers and manual time: what comes out must not depend on how the work was cut up."""

import asyncio
import itertools
import random
from collections.abc import Callable

import pytest
from fakes import VOICE_FRAME, FakePool, Rig, run, sound, voice_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from listening import SHORT, SPOKEN, TALK, alone, answers, hear, packets, turns, whole

from clser.engine.errors import GivenError
from clser.engine.fuse import FuseConfig, Judge
from clser.engine.pipeline import GATHER_S
from clser.engine.records import Result, Status

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
            waits: list[float] = []

            def soon(delay_s: float, call: Callable[..., object], *given: object) -> asyncio.Handle:
                waits.append(delay_s)
                return asyncio.get_running_loop().call_soon(call, *given)

            asyncio.get_running_loop().call_later = soon  # type: ignore[method-assign,assignment]  # virtual time
            streams = [rig.engine.open(f"s{number}") for number in range(20)]
            for stream in streams:
                stream.push(sound([(True, 64)]))
            await rig.settle()
            (_, first), *_ = rig.pool.batches
            assert len(first.rows) == 20
            assert waits[0] == GATHER_S  # many streams are given a moment to come together

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
