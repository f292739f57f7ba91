"""The grammar, the windows it is trained on, and that what is made can be loaded and aligned."""

import random
from pathlib import Path

import numpy as np
import pytest

from clser.bench import espeak, grammar
from clser.bench.listener_score import matched, score_model, sound, word_error_rate
from clser.bench.listener_windows import INSIDE, Speech, Window, empty, window
from clser.engine.errors import GivenError, MissingError
from clser.engine.records import SAMPLE_RATE_HZ

needs_espeak = pytest.mark.skipif(not espeak.present(), reason="needs espeak-ng")


def test_sentences_are_the_same_for_the_same_seed() -> None:
    assert grammar.sentences(3, 50) == grammar.sentences(3, 50)
    assert grammar.sentences(3, 50) != grammar.sentences(4, 50)
    assert grammar.sentences(3, 50)[:10] == grammar.sentences(3, 10)


def test_what_is_held_out_is_never_trained_on() -> None:
    trained, tested = grammar.sentences(0, 2000, tested=False), grammar.sentences(1, 500)
    assert not {" ".join(grammar.plain(text)) for text in trained} & {" ".join(grammar.plain(text)) for text in tested}
    assert not set(grammar.voices()) & set(grammar.held_out_voices())
    timbres = {voice.partition("+")[2] for voice in grammar.voices()}
    assert not timbres & {voice.partition("+")[2] for voice in grammar.held_out_voices()}


def test_a_pause_does_not_let_a_sentence_out() -> None:
    assert grammar.held_out("oh no, thank you") == grammar.held_out("oh no thank you")


def test_sentences_are_of_the_vocabulary_and_use_all_of_it() -> None:
    used = [grammar.plain(text) for text in grammar.sentences(0, 4000, tested=False)]
    assert {word for words in used for word in words} == set(grammar.VOCABULARY)
    assert {len(words) for words in used} <= set(range(grammar.LEAST_WORDS, grammar.MOST_WORDS + 1))


@needs_espeak
def test_words_are_where_they_are_said() -> None:
    spoken = grammar.speak("oh no, thank you", "en+m4", 150, 40)
    assert spoken.pcm.dtype == np.int16
    assert [word.word for word in spoken.words] == ["oh", "no", "thank", "you"]
    starts = [word.start for word in spoken.words]
    assert starts == sorted(starts)
    assert all(0 <= word.start < word.end <= len(spoken.pcm) for word in spoken.words)
    pause = spoken.pcm[spoken.words[1].end : spoken.words[2].start]
    assert len(pause) > 0.1 * SAMPLE_RATE_HZ
    assert np.abs(pause).max() < 0.02 * np.abs(spoken.pcm).max()


@needs_espeak
def test_words_that_are_spoken_as_one_share_its_time() -> None:
    words = grammar.speak("put the box on the table", "en+m4").words
    assert [word.word for word in words] == ["put", "the", "box", "on", "the", "table"]
    assert words[3].end == words[4].start


@needs_espeak
def test_every_held_out_voice_says_every_word() -> None:
    draw = random.Random(0)
    for text in grammar.sentences(5, 60):
        assert [word.word for word in grammar.speak(text, *grammar.someone(draw)).words] == grammar.plain(text)


@needs_espeak
def test_a_voice_that_is_not_there_is_an_error() -> None:
    with pytest.raises(GivenError, match=r"'nowhere\+m4'"):
        grammar.speak("oh no", "nowhere+m4")


def test_missing_espeak_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    espeak._library.cache_clear()
    with pytest.raises(MissingError, match="apt install espeak-ng"):
        grammar.speak("oh no", "en+m4")


@pytest.fixture(scope="module")
def speech() -> Speech:
    if not espeak.present():
        pytest.skip("needs espeak-ng")
    return Speech.spoken(0, 40)


def test_windows_hold_the_words_that_are_inside(speech: Speech) -> None:
    windows = [window(speech, np.random.default_rng([0, number])) for number in range(200)]
    assert {one.speech for one in windows} == {True, False}
    for one in windows:
        assert one.sound.dtype == np.float32
        assert np.abs(one.sound).max(initial=0) <= 1
        assert [each.word for each in one.inside] == [each.word for each in one.touched if each in one.inside]
        assert all(0 <= each.start < each.end <= len(one.sound) for each in one.touched)
        assert one.speech or not one.touched


def test_the_same_seed_draws_the_same_window(speech: Speech) -> None:
    one, other = (window(speech, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one.sound, other.sound)
    assert one.inside == other.inside


def test_a_word_cut_short_is_not_in_the_transcript(speech: Speech) -> None:
    said = {tuple(row[1:].tolist()) for row in speech.words}
    lengths = {end - start for _, start, end in said}
    cut = [window(speech, np.random.default_rng([1, number])) for number in range(300)]
    outside = [each for one in cut for each in one.touched if each not in one.inside]
    assert outside, "no window was cut inside a word"
    assert all(each.end - each.start < INSIDE * max(lengths) for each in outside)


def test_speech_is_kept_and_read_again(tmp_path: Path) -> None:
    if not espeak.present():
        pytest.skip("needs espeak-ng")
    made = Speech.kept(tmp_path / "speech.npz", 0, 5)
    again = Speech.kept(tmp_path / "speech.npz", 0, 5)
    assert all(np.array_equal(one, other) for one, other in zip(made, again, strict=True))
    assert len(Speech.kept(tmp_path / "speech.npz", 0, 6).ends) == 6, "another count is made anew"


def test_empty_windows_are_of_every_kind_and_finite() -> None:
    waves = [empty(np.random.default_rng(number)) for number in range(50)]
    assert all(np.isfinite(wave).all() and np.abs(wave).max() <= 1 for wave in waves)
    assert any(not wave.any() for wave in waves)


def test_errors_are_counted_by_words_said() -> None:
    assert word_error_rate([(list("abcd"), list("axc"))]) == 0.5
    assert word_error_rate([([], ["a"]), (["b"], ["b"])]) == 1.0
    assert matched(list("abcd"), list("axc")) == [(0, 0), (2, 2)]
    assert matched([], ["a"]) == []


def _net() -> None:
    for needed in ("torch", "transformers", "faster_whisper"):
        pytest.importorskip(needed, reason="needs the extras train and whisper")


@pytest.mark.torch
def test_tokens_are_words_and_anything_else_is_spelt() -> None:
    _net()
    from faster_whisper.tokenizer import Tokenizer

    from clser.bench.listener_net import BEGIN, END, FIRST_TIME, FIRST_WORD, NO_SPEECH, NO_TIMES, tokenizer

    ours = tokenizer()
    text = " " + " ".join(grammar.VOCABULARY)
    tokens = ours.encode(text, add_special_tokens=False).ids
    assert tokens == list(range(FIRST_WORD, END))
    assert ours.decode(tokens) == text
    assert ours.decode(ours.encode(" Zürich, 3!").ids) == " Zürich, 3!"
    theirs = Tokenizer(ours, multilingual=False)
    assert (theirs.sot, theirs.eot, theirs.no_speech, theirs.no_timestamps) == (BEGIN, END, NO_SPEECH, NO_TIMES)
    assert theirs.timestamp_begin == FIRST_TIME == ours.token_to_id("<|0.00|>")
    assert not set(theirs.non_speech_tokens) & set(range(FIRST_WORD, END))
    words, _ = theirs.split_to_word_tokens([*tokens[:3], theirs.eot])
    assert words[:3] == [f" {word}" for word in grammar.VOCABULARY[:3]]


@pytest.mark.torch
def test_mel_is_that_of_faster_whisper() -> None:
    _net()
    from faster_whisper.feature_extractor import FeatureExtractor

    from clser.bench.listener_net import Mel

    draw = np.random.default_rng(0)
    sounds = [(0.1 * draw.standard_normal(samples)).astype(np.float32) for samples in (16000, 9600)]
    ours = Mel()(sounds, 120, [False, False]).numpy()
    for own, wave in zip(ours, sounds, strict=True):
        theirs = FeatureExtractor()(wave)
        frames = len(wave) // 160
        assert np.abs(own[:, : frames - 1] - theirs[:, : frames - 1]).max() < 1e-3
        assert not own[:, frames + 1 :].any()


@pytest.mark.torch
def test_no_speech_is_the_first_thing_said_of_an_empty_window() -> None:
    _net()
    from clser.bench.listener_net import BEGIN, END, NO_SPEECH, NO_TIMES, _tokens

    nothing = np.zeros(8000, np.float32)
    assert _tokens(Window(nothing, [], [], speech=False), timed=False)[1] == [NO_SPEECH, END]
    assert _tokens(Window(nothing, [], [], speech=True), timed=False) == ([BEGIN, NO_TIMES], [NO_TIMES, END], {})


@pytest.mark.slow  # imports and converts: 8 s
@pytest.mark.torch
@needs_espeak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the converters
def test_a_few_steps_make_what_faster_whisper_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _net()
    import torch

    from clser.bench import listener
    from clser.bench.listener_net import BEGIN, FIRST_WORD, WIDTH

    torch.set_num_threads(1)
    monkeypatch.setattr(listener, "ROWS", 4)
    monkeypatch.setattr(listener, "DRAWN", 8)
    assert listener.train(tmp_path, 0, 1.0, 16, resume=False, steps=2).step == 2
    assert listener.train(tmp_path, 0, 1.0, 16, resume=True, steps=3).step == 3
    assert {path.name for path in (tmp_path / "ct2").iterdir()} == {
        "config.json",
        "model.bin",
        "preprocessor_config.json",
        "tokenizer.json",
        "vocabulary.json",
    }
    from faster_whisper import WhisperModel

    model = WhisperModel(str(tmp_path / "ct2"), device="cpu", compute_type="int8", cpu_threads=1)
    assert not model.model.is_multilingual
    mel = model.feature_extractor(sound(grammar.speak("oh no", "en+m4")))
    heard = model.encode(mel[:, :100])
    assert heard.shape == [1, 50, WIDTH], "a window is as long as it is"
    placed = model.model.align(heard, [BEGIN], [[FIRST_WORD, FIRST_WORD + 1]], 50)
    assert {token for token, _ in placed[0].alignments} <= {0, 1, 2}


@needs_espeak
def test_a_recogniser_that_hears_nothing_gets_every_word_wrong() -> None:
    class Deaf:
        def transcribe(self, wave: object, **options: object) -> tuple[list[object], None]:
            return [], None

    scored = score_model(Deaf(), 0, 5, empties=3)
    assert (scored.wer, scored.wer_noisy, scored.wer_cut) == (1.0, 1.0, 1.0)
    assert sum(scored.false_words.values()) == 0
    assert scored.speech_called_none == 5
