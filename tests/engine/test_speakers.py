"""What is known of speakers: pure, by its own rules; and through an engine on fake workers, to the last digit."""

import json
import random
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog
from fakes import CARD, KNOWING, RATE_HZ, VOICE_FRAME, Rig, run, sound, tells, usual, voice_logits, voice_step
from listening import LONG, SHORT, answers, packets

from clser.engine import jobs
from clser.engine.errors import GivenError
from clser.engine.fuse import FuseConfig, Judge
from clser.engine.logs import configure_logs
from clser.engine.records import Result, Samples, Utterance
from clser.engine.speakers import Acquaintance, Memory, SpeakerConfig
from clser.engine.track import Track, Voice
from clser.models.labels import HEADS, NONE

ANNA, BEA = Voice("anna", shared=True), Voice("bea", shared=True)
KITCHEN = Voice("kitchen", shared=False)
TWO = sound([(False, 500), (True, 1500), (False, 600), (True, 1300), (False, 500)], 3)
"""Two utterances."""


def memory(most: int = 10, **config: Any) -> Memory:
    return Memory(SpeakerConfig(**config), 3, most)


def told(*numbers: float) -> np.ndarray:
    return np.array([1.0, *numbers], np.float32)


# --- the memory -------------------------------------------------------------------------------------------------------


def test_utterances_are_added_up_by_voice() -> None:
    known = memory()
    assert known.sums(ANNA, 0.0) is None
    first = told(2.0, 3.0)
    known.learn(ANNA, first, 1.0)
    first[:] = 9.0  # what was handed over is not what is kept
    known.learn(ANNA, told(0.5, -1.0), 2.0)
    known.learn(BEA, told(7.0, 7.0), 2.0)
    assert known.sums(ANNA, 2.0).tolist() == [2.0, 2.5, 2.0]
    assert known.sums(BEA, 2.0).tolist() == [1.0, 7.0, 7.0]
    assert known.sums(Voice("anna", shared=False), 2.0) is None, "a stream of that name is somebody else"
    assert (len(known), known.utterances(ANNA), known.utterances(KITCHEN)) == (2, 2.0, 0.0)


def test_old_utterances_fade() -> None:
    known = memory(most_utterances=4)
    for n in range(20):
        known.learn(ANNA, told(float(n), 1.0), n)
    count, total, ones = known.sums(ANNA, 20.0)
    assert count == pytest.approx(4.0)
    assert ones == pytest.approx(4.0)
    expected = 0.0
    for n in range(20):
        expected = (expected + n) * min(1.0, 4.0 / (min(n, 4) + 1.0))
    assert total == pytest.approx(expected, rel=1e-5)
    assert total / count > 15, "the newest count most"


def test_who_was_silent_too_long_is_forgotten() -> None:
    known = memory(forget_after_s=600.0)
    known.learn(ANNA, told(1.0, 1.0), 1000.0)
    known.learn(BEA, told(1.0, 1.0), 1300.0)
    known.learn(KITCHEN, told(1.0, 1.0), 5.0)
    assert known.sums(ANNA, 1600.0) is not None
    known.sweep(1601.0)
    assert (len(known), known.sums(ANNA, 0.0)) == (2, None), "nobody has to ask for it to be gone"
    assert known.sums(KITCHEN, 605.0) is not None, "its time is its own"
    known.expire(KITCHEN, 605.1)
    assert len(known) == 1
    known.learn(BEA, told(2.0, 2.0), 1901.0)
    assert known.sums(BEA, 1901.0).tolist() == [1.0, 2.0, 2.0], "and begins anew"


def test_there_is_room_for_so_many_and_who_was_heard_longest_ago_goes() -> None:
    known = memory(most=3)
    for n, name in enumerate("abcacd"):
        known.learn(Voice(name, shared=True), told(n, n), n)
    assert [known.utterances(Voice(name, shared=True)) for name in "abcd"] == [2.0, 0.0, 2.0, 1.0]
    assert len(known) == 3


def test_switched_off_it_forgets_and_frozen_it_stays_as_it_is() -> None:
    known = memory()
    known.learn(ANNA, told(1.0, 2.0), 0.0)
    known.configure(SpeakerConfig(learns=False))
    known.learn(ANNA, told(1.0, 2.0), 0.0)
    assert known.sums(ANNA, 1.0).tolist() == [1.0, 1.0, 2.0]
    known.configure(SpeakerConfig(enabled=False))
    known.learn(ANNA, told(1.0, 2.0), 0.0)
    assert len(known) == 0


# --- a stream's acquaintance ------------------------------------------------------------------------------------------


def track(acquaintance: Acquaintance, number: int = 1, start: int = 0) -> Track:
    return Track(number, None, start, start, voice=acquaintance.voice)


def heard(acquaintance: Acquaintance, own: Track, *rows: tuple[int, float]) -> None:
    """Rows of so many frames, and what was told behind each."""
    for frames, number in rows:
        own.answers.extend([np.zeros(9, np.float32)] * frames)
        acquaintance.note(own, told(number, number))


def final(end: int, reason: str = "silence") -> Utterance:
    return Utterance(1, "final", 0, 0, end, reason)


def test_an_utterance_is_given_the_same_however_often_it_is_heard() -> None:
    known = memory()
    stream = Acquaintance(known, "kitchen", "anna", 100)
    known.learn(ANNA, told(1.0, 2.0), 0.0)
    own = track(stream)
    given = stream.introduce(own, 1.0)
    assert np.frombuffer(given, np.float32).tolist() == [1.0, 1.0, 2.0]
    known.learn(ANNA, told(5.0, 5.0), 1.0)  # from another stream
    own.hear_again()
    assert stream.introduce(own, 2.0) == given


def test_an_utterance_that_was_cut_is_learnt_from_up_to_where_no_cut_falls_before() -> None:
    known = memory()
    stream = Acquaintance(known, "kitchen", "anna", cut_from=10)
    own = track(stream)
    own.sent = 7
    assert stream.up_to_cut(own, 16) == 3, "a row ends there"
    assert stream.up_to_cut(own, 2) == 2
    heard(stream, own, (7, 1.0), (3, 2.0), (4, 3.0))
    own.sent = 14
    assert stream.up_to_cut(own, 16) == 16
    assert sorted(own.told) == [10, 14]
    stream.learn(own, final(12 * VOICE_FRAME, "longest"), 12, 0.0)
    assert known.sums(ANNA, 0.0).tolist() == [1.0, 2.0, 2.0]
    stream.learn(own, final(14 * VOICE_FRAME), 14, 0.0)
    assert known.sums(ANNA, 0.0).tolist() == [2.0, 5.0, 5.0]


def test_of_a_reset_nothing_is_left_not_even_what_is_still_to_be_answered() -> None:
    known = memory()
    stream = Acquaintance(known, "kitchen", None, 100)
    late = track(stream)
    heard(stream, late, (5, 1.0))
    known.learn(KITCHEN, told(1.0, 1.0), 0.0)
    stream.turn_to(None, [late])
    stream.learn(late, final(5 * VOICE_FRAME), 5, 0.0)
    assert len(known) == 0
    assert stream.voice == KITCHEN


@pytest.mark.parametrize(
    ("first", "then", "remembers"),
    [("anna", "bea", True), ("anna", None, False), (None, "bea", False), (None, None, False)],
)
def test_who_has_a_name_can_come_back(first: str | None, then: str | None, remembers: bool) -> None:
    known = memory()
    stream = Acquaintance(known, "kitchen", first, 100)
    before = stream.voice
    known.learn(before, told(1.0, 1.0), 0.0)
    stream.turn_to(then, [])
    assert (known.sums(before, 0.0) is not None) is remembers
    assert stream.utterances == 0.0


# --- through an engine ------------------------------------------------------------------------------------------------


def knowing(**sections: Any) -> Rig:
    return Rig(card=KNOWING, **sections)


async def say(rig: Rig, pcm: Samples, name: str = "a", speaker: str | None = None, size: int = 320) -> Any:
    stream = rig.engine.open(name, speaker=speaker)
    for packet in packets(pcm, [size]):
        await stream.feed(packet)
    return stream


def given(rig: Rig) -> list[list[float] | None]:
    """What each utterance was given, in the order in which they began; None: nothing."""
    out: list[list[float] | None] = []
    for _, batch in rig.pool.batches:
        if batch.lane == "voice":
            states = iter(np.frombuffer(batch.states, np.float32).reshape(-1, 5).tolist())
            out += [next(states) if row.given else None for row in batch.rows if row.fresh]
    return out


def utterances(rig: Rig, pcm: Samples, stream: str = "a") -> list[Samples]:
    return [pcm[final.start_sample : final.end_sample] for final in rig.finals(stream)]


def heard_of(sound_S: Samples) -> np.ndarray:
    """What the network tells after all whole frames."""
    state = np.zeros(4)
    for frame in sound_S[: len(sound_S) // VOICE_FRAME * VOICE_FRAME].reshape(-1, VOICE_FRAME):
        state, _ = voice_step(state, frame)
    return tells(state)


@pytest.mark.parametrize("size", [160, 1111, len(TWO)])
def test_the_second_utterance_is_answered_with_what_the_first_one_told(size: int) -> None:
    async def main() -> None:
        async with knowing() as rig:
            await (await say(rig, TWO, size=size)).close()
            first, second = utterances(rig, TWO)
            assert given(rig) == [None, heard_of(first).tolist()]
            judge = Judge(FuseConfig(), KNOWING)
            expected = judge.opinion(voice_logits(second) - usual(heard_of(first)))
            assert rig.finals()[1].emotion.probabilities == expected.probabilities
            assert expected.probabilities != judge.opinion(voice_logits(second)).probabilities
            assert rig.finals()[0].emotion.probabilities == judge.opinion(voice_logits(first)).probabilities

    run(main())


def test_a_named_speaker_is_known_in_every_stream_and_others_are_not() -> None:
    async def main() -> None:
        async with knowing() as rig:
            await (await say(rig, TWO, "a", "anna")).close()
            one, two = (heard_of(each) for each in utterances(rig, TWO))
            await say(rig, TWO, "b", "anna")
            await say(rig, TWO, "c", "bea")
            await say(rig, TWO, "d")
            await rig.settle()
            sums = (one + two).tolist()
            assert given(rig)[2:] == [sums, (one + two + one).tolist(), None, one.tolist(), None, one.tolist()]
            described = rig.engine.describe()
            assert described["speakers_known"] == 3
            assert [each["speaker_utterances"] for each in described["streams"]] == [4, 2, 2]

    run(main())


@pytest.mark.parametrize(
    ("speaker", "then", "back", "knows"),
    [
        ("anna", "bea", "anna", True),
        ("anna", None, "anna", False),
        (None, None, None, False),
        (None, "bea", None, False),
    ],
)
def test_reset_speaker(speaker: str | None, then: str | None, back: str | None, knows: bool) -> None:
    async def main() -> None:
        async with knowing() as rig:
            stream = await say(rig, TWO[:32_000], "a", speaker)
            rig.engine.reset_speaker("a", then)
            await stream.feed(TWO[:32_000])
            rig.engine.reset_speaker("a", back)
            await stream.feed(TWO[:32_000])
            await stream.close()
            assert len(rig.finals()) == 3
            first, second, third = given(rig)
            assert (first, second) == (None, None)
            assert (third is not None) is knows

    run(main())


def test_a_stream_without_a_name_is_forgotten_when_it_closes_and_one_with_a_name_is_not() -> None:
    async def main() -> None:
        async with knowing() as rig:
            await (await say(rig, TWO)).close()
            assert rig.engine.describe()["speakers_known"] == 0
            await (await say(rig, TWO, "a", "anna")).close()
            assert rig.engine.describe()["speakers_known"] == 1
            await (await say(rig, TWO)).close()
            assert [each is None for each in given(rig)] == [True, False, True, False, True, False]

    run(main())


def test_silence_forgets_and_a_gap_does_not() -> None:
    """A stream's own speaker by its own sound, however fast it comes; a named one by the clock."""

    async def main() -> None:
        quiet = np.zeros(4 * RATE_HZ, np.int16)
        async with knowing(speaker={"forget_after_s": 5.0}) as rig:
            stream = await say(rig, TWO[:32_000])
            await rig.clock.advance(6.0)
            await stream.feed(TWO[:32_000])
            stream._pipeline.gap(stream._state, 3 * RATE_HZ, "lost")
            await stream.feed(TWO[:32_000])
            for _ in range(2):
                await stream.feed(quiet)
            await rig.clock.advance(0.2)
            assert rig.engine.describe()["speakers_known"] == 0
            await stream.feed(TWO[:32_000])
            await stream.close()
            assert [each and each[0] for each in given(rig)] == [None, 1.0, 2.0, None]
        async with knowing(speaker={"forget_after_s": 5.0}) as rig:
            stream = await say(rig, TWO[:32_000], "a", "anna")
            for _ in range(2):
                await stream.feed(quiet)
            await stream.feed(TWO[:32_000])
            await stream.close()
            await rig.clock.advance(4.9)
            assert rig.engine.describe()["speakers_known"] == 1
            await rig.clock.advance(0.3)
            assert rig.engine.describe()["speakers_known"] == 0
            assert [each and each[0] for each in given(rig)] == [None, 1.0]

    run(main())


def test_switched_off_nobody_is_known() -> None:
    async def main() -> None:
        async with knowing(speaker={"enabled": False}) as rig:
            await (await say(rig, TWO, "a", "anna")).close()
            assert given(rig) == [None, None]
            assert not any(row.keep for row in rig.pool.rows("voice"))
            assert rig.engine.describe()["speakers_known"] == 0

    run(main())


def test_it_can_be_switched_while_the_engine_runs() -> None:
    async def main() -> None:
        async with knowing() as rig:
            await (await say(rig, TWO, "a", "anna")).close()
            rig.engine.reload(("speaker.learns=false",))
            await (await say(rig, TWO, "a", "anna")).close()
            third, fourth = given(rig)[2:]
            assert third == fourth
            assert third is not None
            assert third[0] == 2.0
            rig.engine.reload(("speaker.enabled=false",))
            assert rig.engine.describe()["speakers_known"] == 0

    run(main())


def test_a_model_that_knows_nobody_is_asked_nothing_of_the_kind() -> None:
    async def main() -> None:
        async with Rig() as rig:
            await (await say(rig, TWO, "a", "anna")).close()
            assert not any(row.keep or row.given for row in rig.pool.rows("voice"))
            described = rig.engine.describe()
            assert described["speakers_known"] == 0

    run(main())


NOTHING_TOLD = [
    ({"least_s": 9.0}, "too_short"),
    ({"heads": (*HEADS[:-1], NONE), "none_above": 0.0}, "not_speech"),
]


@pytest.mark.parametrize(("changes", "reason"), NOTHING_TOLD)
def test_what_is_too_short_or_no_speech_is_not_learnt_from(changes: dict[str, Any], reason: str) -> None:
    async def main() -> None:
        async with Rig(card=msgspec.structs.replace(KNOWING, **changes)) as rig:
            await (await say(rig, TWO, "a", "anna")).close()
            assert [final.emotion.reason for final in rig.finals()] == [reason] * 2
            assert given(rig) == [None, None]
            assert rig.engine.describe()["speakers_known"] == 0

    run(main())


def test_what_is_unsure_is_learnt_from() -> None:
    async def main() -> None:
        async with Rig(card=KNOWING, fuse={"abstain_below": 1.0}) as rig:
            await (await say(rig, TWO)).close()
            assert [final.emotion.reason for final in rig.finals()] == ["unsure"] * 2
            assert given(rig)[1] is not None

    run(main())


async def undisturbed() -> tuple[Any, Any]:
    async with knowing(**SHORT) as rig:
        await (await say(rig, LONG)).close()
        return answers(rig, "a"), given(rig)


def test_cut_utterances_are_learnt_from_whatever_the_packets() -> None:
    expected = run(undisturbed())
    assert "longest" in [answer[3] for answer in expected[0]]
    assert all(each is not None for each in expected[1][1:])

    async def main(size: int) -> None:
        async with knowing(**SHORT) as rig:
            await (await say(rig, LONG, size=size)).close()
            assert (answers(rig, "a"), given(rig)) == expected
            assert rig.pipeline.totals()["frames_entered"] >= rig.pipeline.totals()["frames_needed"]

    for size in (100, 2500, len(LONG)):
        run(main(size))


@pytest.mark.parametrize("seed", range(8))
def test_utterances_that_are_heard_again_are_given_the_same_and_nothing_is_learnt_twice(seed: int) -> None:
    chance = random.Random(seed)
    expected, expected_given = run(undisturbed())

    async def main() -> None:
        async with knowing(hold=("vad", "voice"), **SHORT) as rig:
            stream = rig.engine.open("a")
            left, deaths = packets(LONG, [chance.randint(500, 4000)]), 0
            while left or rig.pool.under_way:
                await rig.settle()
                if left and chance.random() < 0.4 and stream._state.backlog < 48_000:
                    stream.push(left.pop(0))
                elif chance.random() > 0.9 and deaths < 12:
                    late = list(rig.pool.under_way)
                    rig.pool.lose()
                    for job in late:
                        rig.pool.answer_late(job)
                    rig.pool.come_back()
                    deaths += 1
                elif rig.pool.under_way:
                    rig.pool.answer(chance.choice(rig.pool.under_way))
            rig.pool.release()
            await stream.close()
            assert deaths >= 3
            assert answers(rig, "a") == expected
            again = [each for n, each in enumerate(given(rig)) if n == 0 or each != given(rig)[n - 1]]
            assert again == expected_given

    run(main())


def test_the_numbers_are_in_no_message_and_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with knowing() as rig:
            await (await say(rig, TWO, "a", "anna")).close()
            rig.pool.lose()
            rig.pool.come_back()
            said = msgspec.json.encode([rig.messages, rig.engine.describe()]).decode()
            sums = rig.pipeline.speakers.sums(ANNA, rig.clock.monotonic_s())
            for number in sums[1:].tolist():
                assert f"{number:.5f}"[:7] not in said
            assert not any("sums" in key or "speaker" in key for result in rig.of(Result) for key in fields(result))

    before = structlog.get_config()
    configure_logs("debug", as_json=True)
    try:
        run(main())
    finally:
        structlog.configure(**before)
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"worker_lost", "ready"} <= {each["event"] for each in logged}
    assert all(isinstance(value, str) for each in logged for value in each.values()), "words, and no numbers"
    assert "speaker" not in str(logged)


def fields(result: Result) -> set[str]:
    """Without the name that it was given."""
    return set(msgspec.to_builtins(result)) - {"speaker"}


# --- what goes to a worker --------------------------------------------------------------------------------------------


def test_an_answer_without_what_was_asked_for_is_nonsense() -> None:
    ready = jobs.Ready(512, KNOWING, vad_state=3)
    asked = jobs.Batch(1, "voice", (jobs.Row(0, 2, True, keep=True), jobs.Row(1, 1, False)))
    answer = jobs.Answer(1, "voice", 10)
    assert jobs.nonsense(asked, answer, np.zeros(3 * len(HEADS) + 5, np.float32), ready) == ""
    assert "belong" in jobs.nonsense(asked, answer, np.zeros(3 * len(HEADS) + 3, np.float32), ready)
    assert "are none" in jobs.nonsense(asked, answer, np.full(3 * len(HEADS) + 5, np.nan, np.float32), ready)
    assert (ready.kept("vad"), jobs.Ready(512, CARD).kept("voice")) == (3, 0)


def test_the_config_has_its_bounds() -> None:
    from clser.engine.config import from_values

    for wrong in ({"forget_after_s": 0}, {"most_utterances": 0}, {"forget_after": 1}):
        with pytest.raises(GivenError, match="speaker"):
            from_values({"speaker": wrong}, "test")
