"""What is written of utterances, held against recognisers that change their minds, forget, and are cut short."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.engine.jobs import Word, Words
from clser.engine.records import Utterance
from clser.engine.ring import Ring
from clser.engine.transcript import MOST_WAITING, Dictation, Transcript

STEP_MS, STEP = 500, 8_000
NUMBERS = np.zeros(9, np.float32)


def ring(length: int = 20 * 16_000) -> Ring:
    made = Ring(length)
    made.append((np.arange(length) % 30_000).astype(np.int16))
    return made


def words(*texts: str, stable: int = 0, whole: bool = False, each: int = 4_000, suspect: bool = False) -> Words:
    written = tuple(Word(f" {text}", n * each, (n + 1) * each, 0.9) for n, text in enumerate(texts))
    return Words(written, stable, "en", 0.9, suspect, whole)


def utterance(end: int, stage: str = "partial", number: int = 1) -> Utterance:
    return Utterance(number, stage, 0, 0, end)  # type: ignore[arg-type]


def hear(dictation: Dictation, sound: Ring, said: Words) -> bool:
    return dictation.hear(dictation.cut(sound), said, NUMBERS)


def test_rows_bring_each_sample_once_and_in_order() -> None:
    dictation, sound = Dictation(STEP_MS), ring()
    transcript = dictation.begin(1_000)
    transcript.grow(1_000 + STEP - 1)
    assert dictation.waiting() == (False, False)
    transcript.grow(1_000 + STEP)
    assert dictation.waiting() == (True, False)
    first = dictation.cut(sound)
    assert (first.fresh, first.anew, first.last) == (True, False, False)
    transcript.grow(1_000 + 2 * STEP, held=True)
    second = dictation.cut(sound)
    assert (second.fresh, second.anew, second.last) == (False, True, False)
    assert np.array_equal(np.concatenate((first.pcm, second.pcm)), sound.read(1_000, 1_000 + 2 * STEP))
    assert dictation.waiting() == (False, False)


def test_what_was_whole_when_it_seemed_over_is_complete_when_it_is() -> None:
    dictation, sound = Dictation(STEP_MS), ring()
    transcript = dictation.begin(0)
    transcript.grow(STEP, held=True)
    hear(dictation, sound, words("well", "then", whole=True))
    assert not transcript.complete
    dictation.follow(transcript, utterance(STEP, "final"), sound)
    assert transcript.complete
    assert transcript.record().stable == "well then"
    assert dictation.waiting() == (False, False)


def test_what_was_not_whole_is_asked_for_once_more() -> None:
    dictation, sound = Dictation(STEP_MS), ring()
    transcript = dictation.begin(0)
    transcript.grow(STEP, held=True)
    hear(dictation, sound, words("well"))
    dictation.follow(transcript, utterance(STEP, "final"), sound)
    assert dictation.waiting() == (True, True)
    cut = dictation.cut(sound)
    assert cut.last and len(cut.pcm) == 0
    assert dictation.waiting() == (False, False)
    dictation.hear(cut, words("well", "then", whole=True), NUMBERS)
    assert transcript.complete


def test_speech_that_goes_on_is_listened_to_again() -> None:
    dictation, sound = Dictation(STEP_MS), ring()
    transcript = dictation.begin(0)
    transcript.grow(STEP, held=True)
    hear(dictation, sound, words("well", whole=True))
    dictation.follow(transcript, utterance(STEP + 5_000), sound)
    assert dictation.waiting() == (False, False)
    transcript.grow(2 * STEP)
    assert dictation.waiting() == (True, False)
    assert not transcript.complete


def test_a_cut_leaves_what_is_behind_it_to_the_next() -> None:
    dictation, sound = Dictation(STEP_MS), ring()
    transcript = dictation.begin(0)
    transcript.grow(4 * STEP)
    hear(dictation, sound, words(*"abcdefgh", stable=2))
    dictation.follow(transcript, utterance(18_000, "final"), sound)
    assert transcript.text == "a b c d"
    cut = dictation.cut(sound)
    assert cut.last and len(cut.pcm) == 0
    dictation.hear(cut, words(*"abcdefgh", stable=8), NUMBERS)
    assert transcript.complete
    assert transcript.text == "a b c d"  # e lies more than half behind 18 000
    following = dictation.begin(10_000)
    assert following.start == 18_000


def test_what_was_published_behind_a_cut_stays_and_is_not_heard_again() -> None:
    dictation, sound = Dictation(STEP_MS), ring()
    transcript = dictation.begin(0)
    transcript.grow(4 * STEP)
    hear(dictation, sound, words(*"abcdefgh", stable=6))
    dictation.follow(transcript, utterance(18_000, "final"), sound)
    assert transcript.text == "a b c d e f"
    assert dictation.begin(10_000).start == 24_000


def test_an_answer_on_its_way_when_the_cut_fell_counts_up_to_the_cut() -> None:
    dictation, sound = Dictation(STEP_MS), ring()
    transcript = dictation.begin(0)
    transcript.grow(4 * STEP)
    cut = dictation.cut(sound)
    dictation.follow(transcript, utterance(18_000, "final"), sound)
    assert not transcript.complete
    dictation.hear(cut, words(*"abcdefgh", stable=8), NUMBERS)
    assert not transcript.complete
    assert transcript.text == "a b c d"
    assert dictation.begin(10_000).start == 18_000  # stable words that nobody has seen do not count
    hear(dictation, sound, words(*"abcdefgh", stable=8))
    assert transcript.complete
    assert transcript.text == "a b c d"


def test_what_is_given_up_stays_as_it_was_shown() -> None:
    dictation, sound = Dictation(STEP_MS), ring()
    transcript = dictation.begin(0)
    transcript.grow(4 * STEP)
    hear(dictation, sound, words(*"abcdefgh", stable=2))
    dictation.give_up()
    shown = transcript.record()
    dictation.follow(transcript, utterance(18_000, "final"), sound)
    assert transcript.record() == shown
    assert dictation.given_up == 1


def test_sound_is_kept_until_it_is_written_down_whatever_becomes_of_the_ring() -> None:
    dictation, sound = Dictation(STEP_MS), ring()
    transcript = dictation.begin(0)
    transcript.grow(STEP)
    before = sound.read(0, STEP)
    dictation.follow(transcript, utterance(STEP, "final"), sound)
    sound.restart(10**6)
    assert np.array_equal(dictation.cut(sound).pcm, before)


def test_of_too_many_that_wait_the_oldest_are_given_up() -> None:
    dictation, sound = Dictation(STEP_MS), ring()
    made = []
    for number in range(MOST_WAITING + 3):
        transcript = dictation.begin(number * STEP)
        transcript.grow((number + 1) * STEP)
        dictation.follow(transcript, utterance((number + 1) * STEP, "final", number), sound)
        made.append(transcript)
    assert [each.gone for each in made] == [True] * 3 + [False] * MOST_WAITING
    assert dictation.given_up == 3


def test_a_language_counts_once_two_in_a_row_say_so() -> None:
    dictation, sound = Dictation(STEP_MS), ring()
    for number, language in enumerate(("de", "en", "en", "de")):
        transcript = dictation.begin(number * STEP)
        transcript.grow((number + 1) * STEP, held=True)
        dictation.follow(transcript, utterance((number + 1) * STEP, "final", number), sound)
        said = Words((Word(" a", 0, 100, 0.9),), 1, language, 0.9, False, True)
        dictation.hear(dictation.cut(sound), said, NUMBERS)
        assert dictation.language == ("en" if number >= 2 else "")


VOCABULARY = st.sampled_from(["a", "b", "c"])


@st.composite
def heard(draw: st.DrawFn) -> list[tuple[list[str], int, bool]]:
    """(words, how many of them are stable, whether the recogniser began anew before): of a recogniser with any habits."""
    return [
        (texts, draw(st.integers(0, len(texts))), draw(st.booleans()))
        for texts in draw(st.lists(st.lists(VOCABULARY, max_size=6), min_size=1, max_size=8))
    ]


@settings(max_examples=100, deadline=None)
@given(heard())
def test_a_stable_word_is_never_taken_back(hypotheses: Sequence[tuple[list[str], int, bool]]) -> None:
    sound, dictation = ring(10 * STEP), Dictation(STEP_MS)
    transcript: Transcript = dictation.begin(0)
    before: list[str] = []
    for number, (texts, stable, anew) in enumerate(hypotheses, 1):
        if anew:
            dictation.rewind()
        transcript.grow(number * STEP)
        hear(dictation, sound, words(*texts, stable=stable))
        record = transcript.record()
        assert record is not None
        now = record.stable.split()
        assert now[: len(before)] == before
        assert len(record.times) == len((record.stable + record.tail).split())
        assert all(a[0] <= b[0] for a, b in zip(record.times, record.times[1:], strict=False))
        before = now
    dictation.follow(transcript, utterance(transcript.grown, "final"), sound)
    hear(dictation, sound, words("x", "y", whole=True, stable=2))
    assert transcript.record().stable.split()[: len(before)] == before
