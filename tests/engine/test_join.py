"""What voice and words say together: without words the voice alone, to the bit; a suspect text weighs less; one maths path."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fakes import CARD

from clser.engine.backends import Numbers, join, open_voice
from clser.engine.backends.join import (
    MOST_NATS,
    WEIGHT,
    Joiner,
    Opinions,
    Pooled,
    by_published,
    log_softmax,
    open_joiner,
    softmax,
    unknown,
)
from clser.engine.backends.words import Reader, open_reader
from clser.engine.errors import FailedError
from clser.engine.jobs import CLASSES, Row, VoiceCard
from clser.engine.records import Samples
from clser.models.labels import HEADS, NONE, PUBLISHED, PUBLISHED_AS

TEN = (*HEADS, NONE)
NOTHING: Samples = np.zeros(0, np.int16)
TEXTS = ["I am so happy, this is wonderful!", "", "leave me alone", "...", "what a surprise"]


class Voice:
    """A voice model of which the card is all that is asked."""

    def __init__(self, heads: tuple[str, ...]) -> None:
        self.card: VoiceCard = msgspec.structs.replace(CARD, heads=heads)


@pytest.fixture(scope="module")
def reader() -> Reader:
    found = open_reader()
    assert found is not None
    return found


def voices(rows: int, heads: int, seed: int = 0) -> Numbers:
    return np.random.default_rng(seed).normal(0, 2, (rows, heads)).astype(np.float32)


def joined(joiner: Joiner, told: Numbers, suspect: bool = False) -> tuple[Numbers, Numbers, Numbers]:
    """Logits, the words' own log-probabilities, weights."""
    rows = [Row(n, 0, True, suspect=suspect) for n in range(len(told))]
    said = joiner.run(rows, NOTHING, told, [""] * len(told))
    assert said.dtype == np.float32
    assert np.isfinite(said).all()
    heads = said.shape[1] - CLASSES - 2
    return said[:, :heads], said[:, heads:-2], said[:, -2:]


def told_by(voice: Numbers, reader: Reader, texts: list[str]) -> Numbers:
    return np.concatenate((voice, reader.read(texts)), 1)


JOINERS = [(TEN, Opinions), (HEADS, Pooled), ((*HEADS[:4], NONE), Pooled)]


# --- which ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "kind"), JOINERS)
def test_what_was_fitted_to_this_voice_reads_its_opinions_and_any_other_is_pooled(heads: Any, kind: type) -> None:
    joiner = open_joiner(Voice(heads))  # type: ignore[arg-type]  # its card is all that is asked
    assert type(joiner) is kind
    assert joiner is not None
    assert joiner.joins == "opinions"


def test_the_shipped_voice_is_joined_by_what_was_fitted_to_it() -> None:
    assert isinstance(open_joiner(open_voice("voice", "cpu")), Opinions)


def test_another_text_model_than_it_was_fitted_to_is_pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "digest", lambda _: "another")
    assert isinstance(open_joiner(Voice(TEN)), Pooled)  # type: ignore[arg-type]  # as above


def test_without_a_text_model_there_is_nothing_to_join(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("join", "words"):
        monkeypatch.setattr(f"clser.engine.backends.{module}.folder", lambda: tmp_path)
    assert open_joiner(Voice(TEN)) is None  # type: ignore[arg-type]  # as above
    assert open_reader() is None


def test_joining_and_reading_load_no_torch() -> None:
    said = (
        "import sys; from clser.engine.backends import open_voice, join, words; "
        "join.open_joiner(open_voice('voice', 'cpu')).joins; words.open_reader().read(['oh no']); "
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'transformers')])"
    )
    known = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True, env=known)
    assert ran.stdout.strip() == "[]"


# --- what was fitted, and the pool ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "kind"), JOINERS)
def test_without_words_the_answer_is_the_voices_own_to_the_bit(heads: Any, kind: type, reader: Reader) -> None:
    joiner = open_joiner(Voice(heads))  # type: ignore[arg-type]  # as above
    assert joiner is not None
    voice = voices(len(TEXTS), len(heads))
    for suspect in (False, True):
        logits, alone, weights = joined(joiner, told_by(voice, reader, TEXTS), suspect)
        for row, text in enumerate(TEXTS):
            if any(sign.isalpha() for sign in text):
                assert (logits[row] != voice[row]).any(), text
                assert weights[row, 1] > 0
            else:
                assert logits[row].tobytes() == voice[row].tobytes()
                assert weights[row].tolist() == [1.0, 0.0]
                np.testing.assert_allclose(alone[row], unknown(1)[0], atol=1e-6)
        np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-5)
        np.testing.assert_allclose(np.exp(alone).sum(1), 1.0, atol=1e-5)


@pytest.mark.parametrize(("heads", "kind"), JOINERS)
def test_a_suspect_text_weighs_less(heads: Any, kind: type, reader: Reader) -> None:
    joiner = open_joiner(Voice(heads))  # type: ignore[arg-type]  # as above
    assert joiner is not None
    told = told_by(voices(50, len(heads)), reader, [TEXTS[0], TEXTS[2]] * 25)
    _, _, trusted = joined(joiner, told)
    _, alone, suspect = joined(joiner, told, suspect=True)
    assert (suspect[:, 1] < trusted[:, 1]).all()
    np.testing.assert_allclose(alone, log_softmax(told[:, len(heads) : len(heads) + CLASSES]), atol=1e-5)


@pytest.mark.parametrize(("heads", "kind"), JOINERS)
def test_company_makes_no_difference_and_none_is_the_voices_affair(heads: Any, kind: type, reader: Reader) -> None:
    joiner = open_joiner(Voice(heads))  # type: ignore[arg-type]  # as above
    assert joiner is not None
    told = told_by(voices(len(TEXTS), len(heads)), reader, TEXTS)
    together = np.concatenate(joined(joiner, told), 1)
    for row in range(len(told)):
        np.testing.assert_allclose(np.concatenate(joined(joiner, told[row : row + 1]), 1)[0], together[row], atol=1e-5)
    if NONE in heads:
        at = heads.index(NONE)
        np.testing.assert_allclose(
            softmax(together[:, : len(heads)])[:, at], softmax(told[:, : len(heads)])[:, at], atol=1e-5
        )


def test_the_pool_says_what_its_constants_say() -> None:
    """One text that is sure and one that is not; nothing is told of `boredom` that is not told of `neutral`."""
    pool, voice = Pooled(HEADS), np.zeros((2, len(HEADS)), np.float32)
    words = np.full((2, CLASSES), 0.0, np.float32)
    words[0, PUBLISHED.index("neutral")] = 3.0
    words[1, PUBLISHED.index("anger")] = 60.0
    logits, _, _ = joined(pool, np.concatenate((voice, words), 1))
    own = log_softmax(words)
    said = log_softmax(logits)
    difference = WEIGHT * (own[0, PUBLISHED.index("neutral")] - own[0, PUBLISHED.index("anger")])
    for head in ("neutral", "boredom", "calm"):
        assert PUBLISHED_AS[head] == "neutral"
        assert said[0, HEADS.index(head)] - said[0, HEADS.index("anger")] == pytest.approx(difference, abs=1e-5)
    apart = said[1, HEADS.index("anger")] - said[1, HEADS.index("fear")]
    assert apart == pytest.approx(WEIGHT * np.log(CLASSES) + MOST_NATS, abs=1e-5), "no more against a class"


def test_a_text_that_fits_the_voice_makes_it_surer_and_one_that_does_not_less_sure(reader: Reader) -> None:
    happy = np.full((1, len(TEN)), -1.0, np.float32)
    happy[0, TEN.index("happiness")] = 1.5
    for joiner in (open_joiner(Voice(TEN)), Pooled(TEN)):  # type: ignore[arg-type]  # as above
        assert joiner is not None
        before = by_published(happy, TEN)[0, PUBLISHED.index("happiness")]
        for text, surer in (("I am so happy, this is wonderful!", True), ("I hate you, you make me sick!", False)):
            logits, _, _ = joined(joiner, told_by(happy, reader, [text]))
            assert (by_published(logits, TEN)[0, PUBLISHED.index("happiness")] > before) == surer


def test_numbers_of_another_text_model_are_refused() -> None:
    joiner = open_joiner(Voice(TEN))  # type: ignore[arg-type]  # as above
    assert joiner is not None
    with pytest.raises(FailedError, match="not the one that this network was fitted to"):
        joiner.run([Row(0, 0, True)], NOTHING, np.zeros((1, len(TEN) + CLASSES), np.float32), ["oh"])


# --- reading words ----------------------------------------------------------------------------------------------------


def test_what_a_text_tells_is_centred_tempered_by_trust_and_nothing_without_a_word(reader: Reader) -> None:
    told, half = reader.read(TEXTS), reader.read(TEXTS, [0.5] * len(TEXTS))
    assert told.shape == (len(TEXTS), reader.tells)
    assert not told[1].any()
    assert not told[3].any()
    np.testing.assert_allclose(told[:, :CLASSES].mean(1), 0.0, atol=1e-6)
    np.testing.assert_allclose(half[:, :CLASSES], told[:, :CLASSES] / 2, atol=1e-6)
    np.testing.assert_array_equal(half[:, CLASSES:], told[:, CLASSES:])
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(reader.read([text])[0], told[row], atol=1e-5)
    assert PUBLISHED[int(told[0, :CLASSES].argmax())] == "happiness"
    assert reader.read([]).shape == (0, reader.tells)
