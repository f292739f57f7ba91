"""Sphinx: when words are settled, with a decoder that hears what the test says; then the real one, where it is installed."""

import io
import itertools
import shutil
import subprocess
import sys
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.engine.asr import AsrConfig
from clser.engine.backends import sphinx
from clser.engine.backends.sphinx import Sphinx, open_recogniser
from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import RecogniserCard, Row, Word, Words
from clser.engine.records import SAMPLE_RATE_HZ, Samples, samples

CONFIG = AsrConfig(recogniser="sphinx")
SPOKEN = samples(300)


class Counting:
    """An ear that hears a word in every 300 ms: in their samples stands which. In passing it mishears all of them."""

    made = 0

    def __init__(self) -> None:
        Counting.made += 1
        self.heard_S: Samples | None = None

    def begin(self, known_S: Samples) -> None:
        assert known_S.size
        self.heard_S = np.zeros(0, np.int16)

    def feed(self, sound_S: Samples) -> None:
        assert self.heard_S is not None, "it was not begun"
        self.heard_S = np.concatenate((self.heard_S, sound_S))

    def passing(self) -> list[Word]:
        return [Word(f"{word.text}?", word.start, word.end, 0.3) for word in self._words()]

    def end(self) -> list[Word]:
        words = self._words()
        self.heard_S = None
        return words

    def _words(self) -> list[Word]:
        assert self.heard_S is not None
        places = np.flatnonzero(np.diff(self.heard_S, prepend=-1, append=-1)).tolist()
        spans = [(a, b) for a, b in itertools.pairwise(places) if self.heard_S[a] > 0]
        return [Word(f" {self.heard_S[a]}", a, b, 0.9) for a, b in spans]


def counting() -> Sphinx:
    Counting.made = 0
    return Sphinx(RecogniserCard("sphinx"), Counting, CONFIG)


def speech(words: int, first: int = 1) -> Samples:
    return np.repeat(np.arange(first, first + words, dtype=np.int16), SPOKEN)


def streamed(
    recogniser: Sphinx, sound_S: Samples, steps: list[int], slot: int = 0, *, last: bool = True
) -> list[Words]:
    """What it held after each step; the steps are taken again and again until the sound is over."""
    said, at = [], 0
    for step in itertools.cycle(steps):
        end = min(at + step, len(sound_S))
        row = Row(slot, end - at, at == 0, last=last and end == len(sound_S))
        said += recogniser.run([row], sound_S[at:end])
        at = end
        if end == len(sound_S):
            return said
    raise AssertionError


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(800, 40_000), min_size=1, max_size=8))
def test_what_is_settled_stays_and_nothing_is_lost(words: int, steps: list[int]) -> None:
    said = streamed(counting(), speech(words), steps)
    for before, after in itertools.pairwise(said):
        assert after.words[: before.stable] == before.words[: before.stable]
        assert after.stable >= before.stable
    assert said[-1].text == " ".join(str(n) for n in range(1, words + 1))
    assert [(word.start, word.end) for word in said[-1].words] == [(n * SPOKEN, (n + 1) * SPOKEN) for n in range(words)]
    assert said[-1].whole
    assert said[-1].stable == words


def test_words_are_settled_early_and_only_when_they_were_weighed() -> None:
    said = streamed(counting(), speech(20), [samples(200)])
    for number, words in enumerate(said[:-1], 1):
        now = number * samples(200)
        assert all("?" not in word.text for word in words.words[: words.stable])
        settled = words.words[words.stable - 1].end if words.stable else 0
        assert now - settled <= sphinx.TURN_SAMPLES + sphinx.NEAR_SAMPLES + SPOKEN
    assert any("?" in words.text for words in said)


def test_before_it_knows_the_voice_it_writes_nothing_unless_asked() -> None:
    recogniser = counting()
    assert recogniser.run([Row(0, SPOKEN * 2, True)], speech(2)) == [Words()]
    (asked,) = recogniser.run([Row(0, 0, False, anew=True)], speech(0))
    assert (asked.text, asked.whole, asked.stable) == ("1 2", True, 0)
    (more,) = recogniser.run([Row(0, SPOKEN, False)], speech(1, 3))
    assert (more.text, more.whole) == ("1 2", False)
    (last,) = recogniser.run([Row(0, 0, False, last=True)], speech(0))
    assert (last.text, last.whole, last.stable) == ("1 2 3", True, 3)


def test_next_to_nothing_holds_no_words() -> None:
    (said,) = counting().run([Row(0, 100, True, last=True)], speech(1)[:100])
    assert said == Words(whole=True)


def test_asked_again_without_new_sound_it_does_not_listen_again() -> None:
    recogniser = counting()
    recogniser.run([Row(0, SPOKEN * 8, True, anew=True)], speech(8))
    recogniser._held.clear()
    recogniser._make, recogniser._free = Counting, []
    made = Counting.made
    (said,) = recogniser.run([Row(0, 0, False, last=True)], speech(0))
    assert said.text == "1 2 3 4 5 6 7 8"
    assert Counting.made == made


def test_a_fresh_row_forgets() -> None:
    recogniser = counting()
    streamed(recogniser, speech(9), [samples(200)], last=False)
    assert streamed(recogniser, speech(5, 100), [samples(200)])[-1].text == "100 101 102 103 104"


def test_company_changes_nothing_of_what_is_weighed_and_decoders_are_few() -> None:
    recogniser = counting()
    sounds = [speech(12, 1 + 100 * slot) for slot in range(9)]
    alone = [[w.words[: w.stable] for w in streamed(counting(), sound_S, [samples(200)])] for sound_S in sounds]
    Counting.made = 0
    for number, settled in enumerate(zip(*alone, strict=True)):
        parts = [sound_S[number * samples(200) :][: samples(200)] for sound_S in sounds]
        last = number == len(alone[0]) - 1
        rows = [Row(slot, len(part), number == 0, last=last) for slot, part in enumerate(parts)]
        together = recogniser.run(rows, np.concatenate(parts))
        assert [words.words[: words.stable] for words in together] == list(settled)
    assert Counting.made == sphinx.HELD  # and the one that was there from the beginning


def test_the_decoder_of_an_utterance_that_is_heard_no_more_is_taken_back() -> None:
    recogniser = counting()
    for slot in range(sphinx.HELD):
        streamed(recogniser, speech(4), [samples(400)], slot, last=False)
    for _ in range(sphinx.FORGOTTEN // 5 + 1):
        streamed(recogniser, speech(4), [samples(200)], 7)
    assert set(recogniser._held) == set()
    (late,) = recogniser.run([Row(0, SPOKEN, False, last=True)], speech(1, 5))
    assert late.text == "1 2 3 4 5"


def test_a_long_silence_is_not_kept() -> None:
    recogniser = counting()
    sound_S = np.concatenate((speech(4), np.zeros(SAMPLE_RATE_HZ * 20, np.int16)))
    streamed(recogniser, sound_S, [samples(200)], last=False)
    assert recogniser._kept[0].sound_S.size <= sphinx.REACH_SAMPLES + sphinx.TURN_SAMPLES
    (said,) = recogniser.run([Row(0, SPOKEN * 2, False, last=True)], speech(2, 5))
    assert said.text == "1 2 3 4 5 6"


def test_doubt() -> None:
    assert not streamed(counting(), speech(8), [samples(200)])[-1].suspect
    (foreign,) = counting().run([Row(0, SPOKEN * 8, True, last=True, language="de")], speech(8))
    assert (foreign.suspect, foreign.language) == (True, "")
    (here,) = counting().run([Row(0, SPOKEN * 8, True, last=True, language="en-GB")], speech(8))
    assert (here.suspect, here.language) == (False, "en")
    hurried = np.repeat(np.arange(1, 40, dtype=np.int16), 800)
    (babble,) = counting().run([Row(0, len(hurried), True, last=True)], hurried)
    assert babble.suspect


def test_few_words_in_much_sound_are_suspect() -> None:
    quiet_S = np.zeros(SAMPLE_RATE_HZ * 4, np.int16)
    assert streamed(counting(), np.concatenate((speech(2), quiet_S)), [samples(200)])[-1].suspect
    assert not streamed(counting(), np.concatenate((speech(2), quiet_S[: samples(1000)])), [samples(200)])[-1].suspect


def test_the_surer_the_decoder_the_better_the_chance() -> None:
    chances = [sphinx.chance(posterior, -4.0) for posterior in (0.0, 0.001, 0.1, 0.5, 0.9, 1.0)]
    assert chances == sorted(chances)
    assert 0 < chances[0] < sphinx.SUSPECT_BELOW < chances[-1] < 1
    assert sphinx.chance(0.5, -6.0) < sphinx.chance(0.5, -3.0)


# --- opening it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "compute", "language", "said"),
    [("large", "cpu", "", "one model"), ("", "cuda:0", "", "on the CPU"), ("", "cpu", "de", "English only")],
)
def test_what_it_cannot_do_is_refused(name: str, compute: str, language: str, said: str) -> None:
    with pytest.raises(GivenError, match=said):
        open_recogniser(name, compute, AsrConfig(recogniser="sphinx", language=language))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingError, match=r"pip install 'clser-stream\[sphinx\]'"):
        open_recogniser("", "cpu", CONFIG)


# --- the real one -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Sphinx:
    pytest.importorskip("pocketsphinx", reason="needs pocketsphinx")
    opened = open_recogniser("", "cpu", AsrConfig(recogniser="sphinx", language="en"))
    assert isinstance(opened, Sphinx)
    return opened


@pytest.fixture(scope="module")
def sentence() -> Samples:
    if not (espeak := shutil.which("espeak-ng")):
        pytest.skip("needs espeak-ng")
    said = subprocess.run(
        [espeak, "-v", "en-us", "-s", "140", "--stdout", "one two three four five six"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    with wave.open(io.BytesIO(said)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        places = np.arange(0, len(pcm), file.getframerate() / SAMPLE_RATE_HZ)
    return np.interp(places, np.arange(len(pcm)), pcm).astype(np.int16)


def test_it_hears_words_in_their_places_whatever_it_heard_before(real: Sphinx, sentence: Samples) -> None:
    said = streamed(real, sentence, [samples(300)])
    for before, after in itertools.pairwise(said):
        assert after.words[: before.stable] == before.words[: before.stable]
    words = said[-1].words
    assert said[-2].stable
    assert set(said[-1].text.split()) & {"one", "two", "three", "four", "five", "six"}
    assert all(word.text == f" {word.text.strip(' <>()[]0123456789')}" for word in words)
    assert all(0 <= word.start < word.end <= len(sentence) and 0 < word.confidence < 1 for word in words)
    assert [word.start for word in words] == sorted(word.start for word in words)
    streamed(real, np.zeros(SAMPLE_RATE_HZ, np.int16), [samples(500)])
    assert streamed(real, sentence, [samples(300)]) == said


def test_silence_is_no_speech(real: Sphinx) -> None:
    assert streamed(real, np.zeros(SAMPLE_RATE_HZ, np.int16), [samples(200)])[-1].text == ""
