"""Words and voice together, through the whole engine: what goes out when, and what may never change."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fakes import CARD as VOICE
from fakes import Rig, joined, run, sound, voice_logits
from scribes import TELLS, WORD, FakeScribes, told_of, words_of

from clser.engine import jobs
from clser.engine.errors import GivenError
from clser.engine.overload import ALONE
from clser.engine.records import Result, Samples, Status, Text
from clser.models.labels import PUBLISHED, PUBLISHED_AS

SPOKEN = sound([(False, 500), (True, 3000), (False, 1500)])
PACKET = 800


def rig(scribes: FakeScribes | None = None, **more: Any) -> Rig:
    return Rig(joins="opinions", scribes=scribes or FakeScribes(), **more)


async def speak(at: Rig, stream: Any, pcm: Samples = SPOKEN) -> None:
    for begin in range(0, len(pcm), PACKET):
        stream.push(pcm[begin : begin + PACKET])
        await at.clock.advance(PACKET / 16_000)


def whole(text: Text | None) -> list[str]:
    assert text is not None
    return (text.stable + text.tail).split()


def of_utterance(at: Rig, number: int = 1) -> list[Result]:
    return [result for result in at.of(Result) if result.utterance == number]


def check_stable(results: list[Result]) -> None:
    """Whatever was once stable stays."""
    before = ""
    for result in results:
        if result.text is not None:
            assert result.text.stable.startswith(before)
            assert len(result.text.times) == len(whole(result.text))
            before = result.text.stable


def test_a_final_has_the_words_of_all_its_sound_and_what_was_stable_stayed() -> None:
    async def main() -> None:
        async with rig() as at:
            stream = at.engine.open("a")
            await speak(at, stream)
            (final,) = at.finals()
            assert final.text is not None
            assert whole(final.text) == words_of(SPOKEN[final.start_sample : final.end_sample])
            assert final.text.tail == ""
            assert final.text.language == "en"
            check_stable(of_utterance(at))
            begin, end = final.text.times[0]
            assert (begin, end - begin) == pytest.approx((final.start_s, WORD / 16_000))

    run(main())


def test_the_voice_answers_at_once_and_the_words_revise_it() -> None:
    async def main() -> None:
        scribes = FakeScribes(held=True)
        async with rig(scribes) as at:
            stream = at.engine.open("a")
            await speak(at, stream, SPOKEN[: 16_000 * 2])
            alone = of_utterance(at)
            assert len(alone) >= 4
            for result in alone:
                assert result.words is None
                assert result.text is None
                assert result.weights.voice == 1.0
                assert result.voice.probabilities == result.emotion.probabilities
            scribes.answer()
            await at.settle()
            revised = of_utterance(at)[len(alone) :]
            assert [r.stage for r in revised] == ["partial"]
            assert revised[0].revision == alone[-1].revision + 1
            assert revised[0].end_sample == alone[-1].end_sample
            assert revised[0].voice == alone[-1].voice
            assert revised[0].weights.words == 0.5
            assert revised[0].words is not None
            assert revised[0].emotion.probabilities != alone[-1].emotion.probabilities
            await speak(at, stream, SPOKEN[16_000 * 2 :])

    run(main())


def test_what_is_joined_is_what_was_said() -> None:
    async def main() -> None:
        async with rig() as at:
            stream = at.engine.open("a")
            await speak(at, stream)
            (final,) = at.finals()
            heard = SPOKEN[final.start_sample : final.end_sample]
            told = np.concatenate((voice_logits(heard), told_of(" ".join(words_of(heard)))))
            logits = joined(told, suspect=False)[: len(VOICE.heads)]
            spread = np.exp(logits - logits.max())
            folded = dict.fromkeys(PUBLISHED, 0.0)
            for head, share in zip(VOICE.heads, spread / spread.sum(), strict=True):
                folded[PUBLISHED_AS[head]] += float(share)
            assert final.emotion.probabilities == pytest.approx(folded, abs=1e-3)
            assert (final.weights.voice, final.weights.words) == (0.5, 0.5)

    run(main())


def test_a_suspect_text_weighs_less_and_says_so() -> None:
    async def main() -> None:
        scribes = FakeScribes()
        scribes.suspicious = True
        async with rig(scribes) as at:
            await speak(at, at.engine.open("a"))
            (final,) = at.finals()
            assert final.text is not None and final.text.suspect
            assert final.weights.words == pytest.approx(0.1)

    run(main())


def test_an_empty_transcript_is_an_answer() -> None:
    async def main() -> None:
        scribes = FakeScribes()
        scribes.mute = True
        async with rig(scribes) as at:
            await speak(at, at.engine.open("a"))
            (final,) = at.finals()
            assert final.text is not None
            assert (final.text.stable, final.text.tail) == ("", "")
            assert final.words is None
            assert final.weights.voice == 1.0
            assert not [r for r in at.of(Result) if r.stage == "amended"]

    run(main())


def test_a_final_waits_for_its_text_so_long_and_no_longer_and_is_amended() -> None:
    async def main() -> None:
        scribes = FakeScribes(held=True)
        async with rig(scribes) as at:
            stream = at.engine.open("a")
            await speak(at, stream, SPOKEN[: int(16_000 * 3.5)])
            await speak(at, stream, SPOKEN[int(16_000 * 3.5) : int(16_000 * 3.9)])
            assert not at.finals()
            await speak(at, stream, SPOKEN[int(16_000 * 3.9) :])
            (final,) = at.finals()
            assert final.words is None and final.weights.voice == 1.0
            assert 300 <= final.timing_ms.fuse <= 520
            scribes.release()
            await at.settle()
            last = at.of(Result)[-1]
            assert last.stage == "amended" and last.final
            assert last.revision == final.revision + 1
            assert whole(last.text) == words_of(SPOKEN[last.start_sample : last.end_sample])
            assert last.words is not None
            assert last.voice == final.voice
            assert at.pipeline.totals()["amended"] == 1

    run(main())


def test_text_that_comes_too_late_is_given_up() -> None:
    async def main() -> None:
        scribes = FakeScribes(held=True)
        async with rig(scribes, asr={"late_s": 2.0}) as at:
            stream = at.engine.open("a")
            await speak(at, stream)
            await at.clock.advance(3.0)
            scribes.release()
            await at.settle()
            assert [r.stage for r in at.of(Result) if r.final] == ["final"]
            await stream.close()

    run(main())


def test_a_recogniser_that_is_too_slow_for_a_file_does_not_stop_it() -> None:
    async def main() -> None:
        scribes = FakeScribes(held=True)
        pcm = np.concatenate([sound([(False, 400), (True, 5000), (False, 800)], seed) for seed in range(4)])
        async with rig(scribes, asr={"late_s": 0.5}) as at:
            stream = at.engine.open("a")
            feeding = asyncio.create_task(stream.feed(pcm))
            for _ in range(100):
                await at.clock.advance(0.5)
                scribes.answer()
                if feeding.done():
                    break
            await feeding
            scribes.release()
            await stream.close()
            finals = at.finals()
            assert [final.reason for final in finals] == ["silence"] * 4

    run(main())


def test_a_slow_recogniser_delays_no_answer_of_the_voice() -> None:
    def answers(scribes: FakeScribes | None) -> list[tuple[Any, ...]]:
        async def main() -> list[tuple[Any, ...]]:
            async with Rig(joins="opinions", scribes=scribes) as at:
                await speak(at, at.engine.open("a"))
                return [
                    (r.stage, r.end_sample, r.captured_unix_us, r.emotion) for r in at.of(Result) if r.stage != "final"
                ]

        return run(main())

    assert answers(FakeScribes(held=True)) == answers(None)


def test_a_recogniser_that_dies_begins_again_and_takes_nothing_back() -> None:
    async def main() -> None:
        scribes = FakeScribes()
        async with rig(scribes) as at:
            stream = at.engine.open("a")
            await speak(at, stream, SPOKEN[: 16_000 * 2])
            scribes.lose()
            await speak(at, stream, SPOKEN[16_000 * 2 : 16_000 * 3])
            scribes.come_back()
            await speak(at, stream, SPOKEN[16_000 * 3 :])
            (final,) = at.finals()
            assert whole(final.text) == words_of(SPOKEN[final.start_sample : final.end_sample])
            check_stable(of_utterance(at))
            assert [e for e, _ in at.events() if e.startswith("recogniser")] == ["recogniser_lost", "recogniser_back"]

    run(main())


def test_while_no_recogniser_is_up_finals_do_not_wait() -> None:
    async def main() -> None:
        scribes = FakeScribes()
        async with rig(scribes) as at:
            stream = at.engine.open("a")
            await speak(at, stream, SPOKEN[: 16_000 * 2])
            scribes.lose()
            await speak(at, stream, SPOKEN[16_000 * 2 :])
            (final,) = at.finals()
            assert final.timing_ms.fuse < 100
            scribes.come_back()
            await at.settle()
            assert at.of(Result)[-1].stage == "amended"

    run(main())


def test_without_recognition_for_good_the_voice_goes_on() -> None:
    async def main() -> None:
        scribes = FakeScribes()
        async with rig(scribes) as at:
            stream = at.engine.open("a")
            await speak(at, stream, SPOKEN[: 16_000 * 2])
            scribes.lose()
            scribes.fail()
            await speak(at, stream, SPOKEN[16_000 * 2 :])
            await speak(at, stream)
            assert len(at.finals()) == 2
            assert at.finals()[1].text is None
            assert ("recognition_failed", "_engine") in at.events()
            at.engine.open("b")
            await stream.close()

    run(main())


def test_where_there_is_too_much_to_do_words_are_given_up_before_answers_are() -> None:
    async def main() -> None:
        scribes = FakeScribes()
        async with rig(scribes, overload={"up_s": 0.2, "down_s": 1e6}) as at:
            stream = at.engine.open("a")
            await speak(at, stream, SPOKEN[: 16_000 * 2])
            at.engine.waits.append(lambda: 0.35)
            while at.pipeline._ladder.step < ALONE:
                await at.clock.advance(0.1)
            at.engine.waits[:] = [lambda: 0.2]
            await speak(at, stream, SPOKEN[16_000 * 2 :])
            await speak(at, stream)
            first, second = at.finals()
            assert first.timing_ms.fuse < 100
            assert second.text is None
            assert [r for r in of_utterance(at, 2) if r.stage == "partial"]

    run(main())


def test_a_recogniser_that_writes_nothing_for_long_is_reported_once_and_begins_anew() -> None:
    async def main() -> None:
        scribes = FakeScribes()
        scribes.mute = True
        async with rig(scribes, asr={"silent_s": 5.0}) as at:
            stream = at.engine.open("a")
            for _ in range(5):
                await speak(at, stream)
            said = [m for m in at.of(Status) if m.event == "recogniser_silent"]
            assert [m.stream for m in said] == ["a"]
            assert "--language" in said[0].detail

    run(main())


LONG = sound([(False, 300), (True, 40_000), (False, 1000)])


def test_of_an_utterance_that_is_cut_no_word_is_written_twice() -> None:
    async def main() -> None:
        async with rig() as at:
            stream = at.engine.open("a")
            await speak(at, stream, LONG)
            finals = at.finals()
            assert len(finals) >= 3
            times = [time for final in finals for time in (final.text.times if final.text else ())]
            assert all(b[0] >= a[1] - 1e-3 for a, b in pairwise(times))
            covered = sum(end - begin for begin, end in times)
            assert covered == pytest.approx(40.0, abs=2.5)
            for number in range(1, len(finals) + 1):
                check_stable(of_utterance(at, number))

    run(main())


def test_streams_that_wait_go_in_one_batch_and_each_keeps_its_words() -> None:
    async def main() -> None:
        scribes = FakeScribes(held=True)
        async with rig(scribes) as at:
            said = [sound([(False, 400), (True, 2000), (False, 1200)], seed) for seed in range(6)]
            streams = [at.engine.open(f"s{n}") for n in range(6)]
            for begin in range(0, len(said[0]), PACKET):
                for stream, pcm in zip(streams, said, strict=True):
                    stream.push(pcm[begin : begin + PACKET])
                await at.clock.advance(0.05)
                scribes.answer()
            scribes.release()
            await at.settle()
            assert max(len(batch.rows) for _, batch in scribes.batches) >= 4
            for n, pcm in enumerate(said):
                last = [r for r in at.of(Result, f"s{n}") if r.final][-1]
                assert whole(last.text) == words_of(pcm[last.start_sample : last.end_sample])

    run(main())


def test_what_is_withdrawn_leaves_nothing_behind() -> None:
    async def main() -> None:
        scribes = FakeScribes()
        async with rig(scribes) as at:
            stream = at.engine.open("a")
            await speak(at, stream, sound([(False, 500), (True, 120), (False, 1500)]))
            await speak(at, stream)
            (final,) = at.finals()
            assert whole(final.text)
            await stream.close()
            assert at.pipeline.streams == 0

    run(main())


def test_a_file_that_is_fed_as_fast_as_can_be_waits_for_its_words() -> None:
    async def main() -> None:
        scribes = FakeScribes(held=True)
        pcm = np.concatenate([sound([(False, 400), (True, 5000), (False, 800)], seed) for seed in range(6)])
        async with rig(scribes) as at:
            stream = at.engine.open("a")
            feeding = asyncio.create_task(stream.feed(pcm))
            for _ in range(400):
                await at.clock.advance(0.02)
                scribes.answer()
                if feeding.done():
                    break
            await feeding
            scribes.release()
            await stream.close()
            last = {r.utterance: r for r in at.of(Result) if r.final}
            assert len(last) == 6
            for result in last.values():
                assert whole(result.text) == words_of(pcm[result.start_sample : result.end_sample])

    run(main())


def test_closing_waits_for_what_is_still_to_be_amended() -> None:
    async def main() -> None:
        scribes = FakeScribes(held=True)
        async with rig(scribes) as at:
            stream = at.engine.open("a")
            await speak(at, stream, SPOKEN[: 16_000 * 2])
            closing = asyncio.create_task(stream.close())
            await at.clock.advance(1.0)
            assert not closing.done()
            assert [r.stage for r in at.of(Result) if r.final] == ["final"]
            scribes.release()
            await at.clock.advance(0.2)
            await closing
            assert [r.stage for r in at.of(Result) if r.final] == ["final", "amended"]

    run(main())


def test_a_gap_keeps_words_apart() -> None:
    async def main() -> None:
        async with rig() as at:
            stream = at.engine.open("a")
            await speak(at, stream, SPOKEN[: 16_000 * 2])
            stream.push(SPOKEN[16_000 * 2 + 1600 : 16_000 * 2 + 2400], start_sample=16_000 * 2 + 1600)
            await speak(at, stream, SPOKEN[16_000 * 2 + 2400 :])
            first, second = at.finals()
            assert whole(first.text) == words_of(SPOKEN[first.start_sample : first.end_sample])
            assert whole(second.text) == words_of(SPOKEN[second.start_sample : second.end_sample])

    run(main())


def test_an_emotion_worker_that_dies_while_joining_joins_again() -> None:
    async def main() -> None:
        async with rig(hold=("both",)) as at:
            stream = at.engine.open("a")
            await speak(at, stream)
            assert at.finals()[0].words is None
            at.pool.lose()
            at.pool.held.clear()
            at.pool.come_back()
            await at.settle()
            await at.clock.advance(0.2)
            assert at.of(Result)[-1].stage == "amended"
            assert at.of(Result)[-1].words is not None

    run(main())


def test_nothing_is_joined_where_nothing_reads_the_words() -> None:
    async def main() -> None:
        async with rig(FakeScribes(tells=0)) as at:
            await speak(at, at.engine.open("a"))
            (final,) = at.finals()
            assert whole(final.text)
            assert final.words is None
            assert not at.pool.rows("both")

    run(main())


KNOWS_TEXT = msgspec.structs.replace(VOICE, contract=2, streams="window", window_frames=100, hop_frames=50)


def test_a_model_that_reads_the_text_hears_its_last_window_again() -> None:
    async def main() -> None:
        async with Rig(joins="text", scribes=FakeScribes(tells=0), card=KNOWS_TEXT) as at:
            await speak(at, at.engine.open("a"))
            (final,) = at.finals()
            assert final.words is not None
            batches = [batch for _, batch in at.pool.batches if batch.lane == "both"]
            assert batches[-1].texts == (" ".join(words_of(SPOKEN[final.start_sample : final.end_sample])),)
            assert batches[-1].rows[0].frames == KNOWS_TEXT.window_frames
            frames = final.end_sample - final.start_sample
            partial = next(n for n, batch in enumerate(batches) if batch.rows[0].frames < KNOWS_TEXT.window_frames)
            assert batches[partial].rows[0].frames % KNOWS_TEXT.hop_frames == 0  # as its voice answered
            heard = SPOKEN[: final.start_sample + frames // 320 * 320][-100 * 320 :]
            assert np.array_equal(at.pool.sounds["both"][-1], heard)

    run(main())


def test_a_final_whose_sound_is_kept_may_wait_for_its_words_however_fast_sound_comes(tmp_path: Path) -> None:
    async def main() -> None:
        scribes = FakeScribes(held=True)
        async with rig(scribes, privacy={"purpose": "test", "keep_sound": str(tmp_path)}) as at:
            stream = at.engine.open("a")
            feeding = asyncio.create_task(stream.feed(sound([(False, 400), (True, 2000), (False, 40_000)])))
            await at.clock.advance(0.1)
            await feeding
            await at.clock.advance(0.5)
            assert len(at.finals()) == 1
            scribes.release()
            await stream.close()

    run(main())
    assert len(list(tmp_path.glob("*.flac"))) == 1


def test_whoever_feeds_live_sound_never_waits_for_words() -> None:
    async def main() -> None:
        scribes = FakeScribes(held=True)
        async with rig(scribes) as at:
            stream = at.engine.open("a")
            feeding = asyncio.create_task(stream.feed(sound([(False, 400), (True, 12_000), (False, 1000)])))
            await at.clock.advance(0.1)
            assert feeding.done()

    run(main())


def test_changed_patience_counts_for_what_is_open() -> None:
    async def main() -> None:
        async with rig(FakeScribes(held=True)) as at:
            stream = at.engine.open("a")
            at.engine.reload(("asr.wait_ms=5000",))
            await speak(at, stream)
            assert not at.finals()
            at.engine.reload(("asr.wait_ms=0",))
            await speak(at, stream)
            assert len(at.finals()) == 2

    run(main())


def test_a_recogniser_that_nobody_named_and_that_cannot_start_is_done_without() -> None:
    class Broken(FakeScribes):
        async def start(self, listener: Any) -> Any:
            raise GivenError("the Whisper in FOLDER cannot be loaded")

    async def main(recogniser: str) -> None:
        async with rig(Broken(), asr={"recogniser": recogniser}) as at:
            await speak(at, at.engine.open("a"))
            assert at.finals()[0].text is None
            assert "FOLDER cannot be loaded" in at.engine.describe()["recogniser"]["why"]

    run(main("auto"))
    with pytest.raises(GivenError, match="FOLDER"):
        run(main("whisper"))


def test_a_recogniser_that_comes_back_gets_its_share() -> None:
    async def main() -> None:
        scribes = FakeScribes(workers=2)
        async with rig(scribes) as at:
            for number in range(6):
                at.engine.open(f"s{number}")
            scribes.lose(0)
            assert [len(desk.streams) for desk in at.pipeline.recognition._desks] == [0, 6]
            scribes.come_back(0)
            assert [len(desk.streams) for desk in at.pipeline.recognition._desks] == [3, 3]

    run(main())


def test_a_gap_does_not_wait_for_words() -> None:
    async def main() -> None:
        scribes = FakeScribes(held=True)
        async with rig(scribes) as at:
            stream = at.engine.open("a")
            await speak(at, stream, SPOKEN[: 16_000 * 2])
            stream.push(SPOKEN[16_000 * 2 + 1600 : 16_000 * 2 + 2400], start_sample=16_000 * 2 + 1600)
            await at.clock.advance(0.05)
            assert stream._state.segmenter.position > 16_000 * 2
            scribes.release()
            await stream.close()
            assert [final.reason for final in at.finals()] == ["gap"]

    run(main())


def test_the_end_does_not_wait_long_for_a_recogniser_that_hangs() -> None:
    async def main() -> None:
        scribes = FakeScribes(held=True)
        async with rig(scribes) as at:
            await speak(at, at.engine.open("a"), SPOKEN[: 16_000 * 2])
            leaving = asyncio.create_task(at.engine._drain())
            await at.clock.advance(2.6)
            assert leaving.done()

    run(main())


def test_the_engine_says_what_writes_and_for_how_long_it_worked() -> None:
    async def main() -> None:
        async with rig() as at:
            await speak(at, at.engine.open("a"))
            assert at.engine.describe()["recogniser"]["name"] == "fake"
            totals = at.pipeline.totals()
            assert totals["recogniser_busy_s"] > 0
            assert totals["words_written"] == len(
                words_of(SPOKEN[at.finals()[0].start_sample : at.finals()[0].end_sample])
            )

    run(main())


def test_the_vector_has_the_width_that_was_promised() -> None:
    assert (
        jobs.ReadyWords(jobs.RecogniserCard("x"), TELLS).needed(jobs.Batch(1, "words", (jobs.Row(0, 1, True),)))
        == TELLS
    )
