"""Whisper heard live: on an ear that is made up, for all that is about time; and on a random checkpoint, for the batches."""

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.engine.asr import AsrConfig
from clser.engine.backends.agreement import normal
from clser.engine.backends.whisper import (
    LEAST_SAMPLES,
    LONGEST_SAMPLES,
    Hypothesis,
    Whisper,
    Window,
    open_recogniser,
)
from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import RecogniserCard, Row, Word, Words
from clser.engine.records import Samples

SECOND = 16_000
WORD, GAP = 4_800, 1_600
CONFIG = AsrConfig()


class Ear:
    """Hears the number of each stretch of a single value; of one that is cut off, something else that depends on the cut."""

    card = RecogniserCard("ear", languages=("en", "de"))
    languages: tuple[str, ...] = ("en", "de")
    window_samples = 30 * SECOND

    def __init__(self, **told: Any) -> None:
        self.told = told
        self.calls: list[list[Window]] = []

    @property
    def decoded(self) -> list[Window]:
        return [window for call in self.calls for window in call]

    def decode(self, windows: Sequence[Window]) -> list[Hypothesis]:
        self.calls.append(list(windows))
        assert all(LEAST_SAMPLES <= len(window.sound_S) <= self.window_samples for window in windows)
        return [self.hear(window) for window in windows]

    def hear(self, window: Window) -> Hypothesis:
        edges = np.flatnonzero(np.diff(window.sound_S, prepend=0, append=0)).tolist()
        words = []
        for start, end in pairwise(edges):
            value = int(window.sound_S[start])
            if value:
                text = f" w{value}" if end - start > WORD * 3 // 4 else f" hm{value}{(end - start) // 500}"
                words.append(Word(text, start, end, 0.8))
        plain = Hypothesis(tuple(words), 2 * len(words), -0.2, 0.1, window.language or "de", 0.9)
        return plain._replace(**self.told)


def spoken(count: int, first: int = 1) -> Samples:
    """So many words, each after a gap."""
    parts = [(np.zeros(GAP), np.full(WORD, n)) for n in range(first, first + count)]
    return np.concatenate([part for pair in parts for part in pair] or [np.zeros(0)]).astype(np.int16)


def true_text(count: int, first: int = 1) -> str:
    return " ".join(f"w{n}" for n in range(first, first + count))


def whisper(ear: Any = None, **config: Any) -> Whisper:
    return Whisper(ear or Ear(), AsrConfig(**config))


def stream(recogniser: Whisper, pcm: Samples, sizes: Sequence[int], *, slot: int = 0, last: bool = True) -> list[Words]:
    """What it held after each piece of the sound; the rest comes in the last."""
    edges = [edge for edge in np.cumsum(sizes).tolist() if edge < len(pcm)]
    pieces = np.split(pcm, edges)
    out = []
    for n, piece in enumerate(pieces):
        row = Row(slot, len(piece), n == 0, last=last and n == len(pieces) - 1)
        out += recogniser.run([row], piece)
    return out


# --- an utterance that grows --------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(0, 40), st.lists(st.integers(0, 2 * SECOND), min_size=1, max_size=60))
def test_in_any_pieces_it_ends_as_heard_whole_and_takes_nothing_back(count: int, sizes: list[int]) -> None:
    pcm = spoken(count)
    held = stream(whisper(), pcm, sizes)
    assert held[-1].text == true_text(count)
    assert held[-1].stable == len(held[-1].words) == count
    assert all(words.whole for words in held)
    for before, after in pairwise(held):
        assert after.words[: before.stable] == before.words[: before.stable]
    for n, word in enumerate(held[-1].words):
        true_end = (n + 1) * (GAP + WORD)
        assert abs(word.end - true_end) < WORD, (
            "times count from the start of the utterance, however the window was cut"
        )


def test_a_word_is_committed_a_step_after_it_was_heard() -> None:
    pcm, step = spoken(20), SECOND // 2
    held = stream(whisper(), pcm, [step] * 30, last=False)
    for n, words in enumerate(held):
        now = min(len(pcm), (n + 1) * step)
        old = [k for k in range(20) if (k + 1) * (GAP + WORD) <= now - step - SECOND // 8]
        assert words.stable >= len(old)


def test_the_cost_of_a_step_does_not_grow_with_the_utterance() -> None:
    ear = Ear()
    held = stream(whisper(ear), spoken(150), [SECOND // 2] * 200)
    assert held[-1].text == true_text(150)
    assert max(len(window.sound_S) for window in ear.decoded) <= LONGEST_SAMPLES + SECOND
    assert len(ear.decoded[-1].sound_S) < 12 * SECOND


def test_more_sound_at_once_than_a_window_holds() -> None:
    ear = Ear()
    ear.window_samples = 6 * SECOND
    pcm = spoken(60)
    (words,) = whisper(ear).run([Row(0, len(pcm), True, last=True)], pcm)
    assert [normal(word.text) for word in words.words].count("w30") == 1
    wrong = [word.text for word in words.words if word.text.strip() not in true_text(60).split()]
    assert len(wrong) <= len(pcm) // (5 * SECOND), (
        "where a window is cut off in the middle of a word, that word may suffer"
    )


def test_a_long_noise_without_words_is_let_go() -> None:
    ear = Ear(words=())
    noise = np.ones(100 * SECOND, np.int16)
    (words,) = whisper(ear).run([Row(0, len(noise), True, last=True)], noise)
    assert (words.words, words.whole, words.suspect) == ((), True, False)
    assert sum(len(window.sound_S) for window in ear.decoded) < 2.2 * len(noise)


def test_too_little_sound_is_not_decoded() -> None:
    ear = Ear()
    recogniser = whisper(ear)
    assert recogniser.run([Row(0, LEAST_SAMPLES - 1, True, last=True)], spoken(1)[: LEAST_SAMPLES - 1]) == [
        Words(whole=True)
    ]
    assert recogniser.run([Row(0, 0, True, last=True)], spoken(0)) == [Words(whole=True)]
    assert ear.calls == []


def test_what_was_decoded_is_not_decoded_again() -> None:
    ear = Ear()
    recogniser, pcm = whisper(ear), spoken(3)
    (before,) = recogniser.run([Row(0, len(pcm), True)], pcm)
    (asked,) = recogniser.run([Row(0, 0, False, anew=True)], pcm[:0])
    assert asked == before
    assert (asked.stable, asked.text, asked.whole) == (0, "w1 w2 w3", True)
    (ended,) = recogniser.run([Row(0, 0, False, last=True)], pcm[:0])
    assert (ended.stable, ended.text) == (3, "w1 w2 w3")
    assert len(ear.calls) == 1


def test_a_tentative_end_may_be_withdrawn() -> None:
    """What stands if the utterance ends here is not yet stable."""
    recogniser, pcm = whisper(), spoken(4)
    half = 2 * (GAP + WORD) + GAP + WORD // 2
    (asked,) = recogniser.run([Row(0, half, True, anew=True)], pcm[:half])
    assert (asked.stable, len(asked.words), asked.whole) == (0, 3, True)
    (ended,) = recogniser.run([Row(0, len(pcm) - half, False, last=True)], pcm[half:])
    assert ended.text == true_text(4)


def test_the_next_utterance_knows_nothing_of_the_last() -> None:
    ear = Ear()
    recogniser = whisper(ear)
    stream(recogniser, spoken(10), [SECOND])
    fresh = stream(recogniser, spoken(2, first=50), [SECOND // 2])
    assert fresh == stream(whisper(), spoken(2, first=50), [SECOND // 2])


def test_rows_of_one_call_are_one_batch_and_keep_to_themselves() -> None:
    ear = Ear()
    together, sounds = whisper(ear), [spoken(3 + slot, first=10 * slot + 1) for slot in range(4)]
    alone = [stream(whisper(), pcm, [SECOND // (slot + 1)] * 20, slot=slot) for slot, pcm in enumerate(sounds)]
    at = [0] * 4
    held: list[list[Words]] = [[] for _ in sounds]
    while any(at[slot] < len(pcm) for slot, pcm in enumerate(sounds)):
        rows, pieces = [], []
        for slot, pcm in enumerate(sounds):
            if at[slot] < len(pcm):
                piece = pcm[at[slot] : at[slot] + SECOND // (slot + 1)]
                ends = at[slot] + len(piece) == len(pcm)
                rows.append(Row(slot, len(piece), at[slot] == 0, last=ends))
                pieces.append(piece)
                at[slot] += len(piece)
        for row, words in zip(rows, together.run(rows, np.concatenate(pieces)), strict=True):
            held[row.slot].append(words)
    assert held == alone
    assert len(ear.calls[0]) == 4


# --- doubt ----------------------------------------------------------------------------------------------------------------


def test_no_speech_is_a_valid_answer() -> None:
    pcm = spoken(3)
    held = stream(whisper(Ear(no_speech=0.7)), pcm, [SECOND])
    assert [(words.words, words.suspect) for words in held] == [((), False)] * len(held)
    assert stream(whisper(Ear(no_speech=0.7), no_speech_above=0.8), pcm, [SECOND])[-1].text == true_text(3)


@pytest.mark.parametrize(
    "told",
    [
        {"log_probability": -1.2},
        {"tokens": 1000},
        {"words": tuple(Word(f" w{n % 3}", 50 * n, 50 * n + 50, 0.9) for n in range(90))},
        {"words": tuple(Word(f" so{n}", 500, 500, 0.9) for n in range(4))},
    ],
    ids=["improbable", "endless", "repeats", "nowhere"],
)
def test_words_in_doubt_are_suspect_and_not_committed(told: dict[str, Any]) -> None:
    held = stream(whisper(Ear(**told)), spoken(6), [SECOND // 2] * 4)
    assert all(words.suspect for words in held if words.words)
    assert all(words.stable == 0 for words in held[:-1])
    assert held[-1].stable == len(held[-1].words) > 0


def test_confidence_is_the_words_mean() -> None:
    words = (Word(" a", 0, 900, 0.5), Word(" b", 900, 1800, 1.0))
    assert stream(whisper(Ear(words=words)), spoken(2), [])[-1].confidence == pytest.approx(0.75)


# --- language -------------------------------------------------------------------------------------------------------------


def languages(ear: Ear) -> list[str]:
    return [window.language for window in ear.decoded]


def test_the_language_is_heard_once_there_is_enough_to_hear() -> None:
    ear = Ear()
    held = stream(whisper(ear), spoken(6), [SECOND // 2] * 4)
    assert [words.language for words in held] == ["", "de", "de", "de", "de"]
    assert languages(ear)[:3] == ["", "", "de"]


def test_an_unlikely_language_is_heard_anew() -> None:
    ear = Ear(certainty=0.3)
    stream(whisper(ear), spoken(20), [SECOND] * 9)
    assert languages(ear)[:6] == ["", "", "", "", "de", "de"]


def test_a_language_that_is_said_is_taken() -> None:
    ear = Ear()
    recogniser, pcm = whisper(ear, language="en-US"), spoken(3)
    rows = [Row(0, len(pcm), True), Row(1, len(pcm), True, language="de-AT"), Row(2, len(pcm), True, language="xx")]
    held = recogniser.run(rows, np.concatenate([pcm] * 3))
    assert languages(ear) == ["en", "de", "en"]
    assert [words.language for words in held] == ["en", "de", "en"]
    assert [words.suspect for words in held] == [False, False, True], "it does not know the language of the third"


def test_a_checkpoint_for_english_says_so() -> None:
    ear = Ear()
    ear.languages = ("en",)
    held = stream(whisper(ear), spoken(1), [])
    assert held[-1].language == "en"


# --- a random checkpoint --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["english", "many"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("faster_whisper", reason="needs the whisper extra")
    import tiny_whisper

    many = request.param == "many"
    return tiny_whisper.make(tmp_path_factory.mktemp("tiny") / request.param, many=many, seconds=30 if many else 16)


LOOSE = AsrConfig(no_speech_above=1.0, log_probability_below=-99.0)


def test_a_batch_says_what_each_row_says_alone(checkpoint: Path) -> None:
    recogniser = open_recogniser(str(checkpoint), "cpu", LOOSE)
    rng = np.random.default_rng(0)
    sounds = [rng.normal(0, 2000, size).astype(np.int16) for size in (40_000, 9_000, 90_000, 16_000)]
    spoken_there = ("", "de", "zh", "de") if checkpoint.name == "many" else ("",) * 4
    rows = [
        Row(slot, len(pcm), True, language=code)
        for slot, (pcm, code) in enumerate(zip(sounds, spoken_there, strict=True))
    ]
    together = recogniser.run(rows, np.concatenate(sounds))
    for row, pcm, words in zip(rows, sounds, together, strict=True):
        (alone,) = recogniser.run([row], pcm)
        assert alone.text == words.text
        assert alone.language == words.language
        for one, two in zip(alone.words, words.words, strict=True):
            assert (one.start, one.end) == (two.start, two.end)
            assert one.confidence == pytest.approx(two.confidence, abs=0.01)
            assert 0 <= one.start <= one.end <= len(pcm)
    assert any(words.words for words in together)


def test_its_card(checkpoint: Path) -> None:
    card = open_recogniser(str(checkpoint), "cpu", CONFIG).card
    assert card.name == checkpoint.name
    assert len(card.digest) == 16
    assert card.languages == (("de", "en", "zh") if checkpoint.name == "many" else ("en",))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(card), type=RecogniserCard) == card


def test_a_language_it_does_not_know(checkpoint: Path) -> None:
    with pytest.raises(GivenError, match="knows"):
        open_recogniser(str(checkpoint), "cpu", AsrConfig(language="fr"))


def test_a_gpu_that_is_not_there(checkpoint: Path) -> None:
    import ctranslate2

    if ctranslate2.get_cuda_device_count():
        pytest.skip("there is a GPU")
    with pytest.raises(MissingError, match="cuda:0"):
        open_recogniser(str(checkpoint), "cuda:0", CONFIG)


def test_short_windows_where_the_checkpoint_was_trained_on_them(checkpoint: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    shutil.copytree(checkpoint, short)
    about = json.loads((short / "preprocessor_config.json").read_text())
    (short / "preprocessor_config.json").write_text(json.dumps({**about, "hears_short_windows": True}))
    recogniser = open_recogniser(str(short), "cpu", LOOSE)
    rng = np.random.default_rng(1)
    sounds = [rng.normal(0, 2000, size).astype(np.int16) for size in (30_000, 70_000, 20_000)]
    rows = [Row(slot, len(pcm), True, language="de") for slot, pcm in enumerate(sounds)]
    together = recogniser.run(rows, np.concatenate(sounds))
    alone = [recogniser.run([row], pcm)[0] for row, pcm in zip(rows, sounds, strict=True)]
    assert [words.text for words in together] == [words.text for words in alone]
    assert any(words.words for words in together)
