"""Recognisers that are slow, die, hang or never start, and engines with too much to do: the voice goes on."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Rig, run, sound
from scribes import FakeScribes, words_of
from spoken import SPOKEN, check_stable, of_utterance, rig, speak, whole

from clser.engine.errors import GivenError
from clser.engine.overload import ALONE
from clser.engine.records import Result, Status


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
