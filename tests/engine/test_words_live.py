"""Words and voice together, through the whole engine: what goes out when, and what may never change."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from fakes import CARD as VOICE
from fakes import Rig, joined, run, sound, voice_logits
from scribes import TELLS, WORD, FakeScribes, told_of, words_of
from spoken import PACKET, SPOKEN, check_stable, of_utterance, rig, speak, whole

from clser.engine import jobs
from clser.engine.records import Result
from clser.models.labels import PUBLISHED, PUBLISHED_AS


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
