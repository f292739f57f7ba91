"""What is done to recordings keeps the length and the level it promises, and is the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.models.data.augment import at_speed, held_out_files
from clser.models.data.clips import Clip
from clser.models.data.codecs import coded, mp3, opus, telephone
from clser.models.data.copies import correlation
from clser.models.data.rooms import in_room, made_up, reverberate
from clser.models.data.stacks import Partners, amid_neutral, joined
from clser.models.data.vtlp import vtlp
from clser.models.errors import GivenError

RATE_HZ = 16_000


def voice(seconds=1.0, pitch_hz=150.0, seed=0):
    """Harmonics that come and go."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    random = np.random.default_rng(seed)
    wave = sum(np.sin(2 * np.pi * pitch_hz * k * time + random.uniform(0, 6)) / k for k in range(1, 20))
    return (0.1 * wave * (1.1 + np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def level_db(sound):
    return 10 * np.log10(np.square(sound).mean())


@pytest.mark.parametrize("through", [lambda s: opus(s, 16), lambda s: opus(s, 6.0), lambda s: mp3(s, 16), telephone])
@pytest.mark.parametrize("samples", [16_000, 12_345, 700])
def test_codecs_keep_length_place_and_roughly_the_level(through, samples):
    sound = voice()[:samples]
    heard = through(sound)
    assert heard.dtype == np.float32
    assert len(heard) == samples
    if samples > 10_000:
        assert level_db(heard) == pytest.approx(level_db(sound), abs=6.0)
        assert np.dot(heard, sound) > 0.9 * correlation(heard, sound) * np.linalg.norm(heard) * np.linalg.norm(sound)


def test_a_lower_rate_is_heard_and_a_telephone_has_no_highs():
    sound = voice() + 0.02 * np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32)
    assert correlation(opus(sound, 8), sound) < correlation(opus(sound, 48), sound)
    assert correlation(mp3(sound, 16), sound) < correlation(mp3(sound, 64), sound)
    power = np.square(np.abs(np.fft.rfft(telephone(sound))))
    hz = np.fft.rfftfreq(RATE_HZ, 1 / RATE_HZ)
    assert power[hz > 4_200].sum() < 1e-4 * power.sum()
    assert power[hz < 180].sum() < 0.01 * power.sum()


def test_codecs_take_silence_and_nothing():
    for through in (lambda s: opus(s, 8), lambda s: mp3(s, 24), telephone):
        assert len(through(np.zeros(0, np.float32))) == 0
        assert np.abs(through(np.zeros(4_000, np.float32))).max() < 1e-3


def test_a_room_keeps_length_and_level_and_adds_no_delay():
    sound = voice()
    for seed in range(3):
        heard = in_room(sound, [], np.random.default_rng(seed))
        assert len(heard) == len(sound)
        assert level_db(heard) == pytest.approx(level_db(sound), abs=0.01)
    late = np.concatenate((np.zeros(300), [0.8], np.zeros(900), [0.4])).astype(np.float32)
    heard = reverberate(sound, late)
    echo = sound + 0.5 * np.concatenate((np.zeros(901), sound[:-901]))
    assert np.allclose(heard / np.linalg.norm(heard), echo / np.linalg.norm(echo), atol=1e-5)
    assert np.array_equal(reverberate(sound, np.zeros(9, np.float32)), sound)


def test_a_made_up_room_dies_away_as_asked():
    response = made_up(0.5, 0.0, np.random.default_rng(0))
    assert np.argmax(np.abs(response)) == 0
    tail = np.square(response[1:].astype(float))
    assert 10 * np.log10(tail.sum()) == pytest.approx(0.0, abs=0.5)
    decay_db = 10 * np.log10(np.cumsum(tail[::-1])[::-1] / tail.sum())
    fifth, twenty_fifth = (int(np.argmax(decay_db < -down)) for down in (5, 25))
    assert 3 * (twenty_fifth - fifth) / RATE_HZ == pytest.approx(0.5, rel=0.15)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_everything_is_the_same_for_the_same_seed(seed):
    sound = voice(0.3)
    noise = [np.random.default_rng(1).standard_normal(4_000).astype(np.float32)]
    assert np.array_equal(*(coded(sound, np.random.default_rng(seed)) for _ in range(2)))
    assert np.array_equal(*(in_room(sound, noise, np.random.default_rng(seed)) for _ in range(2)))


def test_speed_changes_length_and_pitch_together():
    fast = at_speed(voice(pitch_hz=200.0), 1.1)
    assert len(fast) == pytest.approx(RATE_HZ / 1.1, abs=2)
    peak_hz = np.abs(np.fft.rfft(fast)).argmax() * RATE_HZ / len(fast)
    assert peak_hz == pytest.approx(220, abs=4)


@given(st.sets(st.text(min_size=1, max_size=5), min_size=2, max_size=30), st.floats(0.05, 0.95), st.integers(0, 9))
def test_files_that_are_tested_with_are_not_trained_with(names, share, seed):
    files = [Path(name) for name in sorted(names)]
    train, test = held_out_files(files, share, seed)
    assert train
    assert test
    assert sorted(map(str, train + test)) == sorted(map(str, files))
    assert held_out_files(files[::-1], share, seed) == (train[::-1], test[::-1])


def test_about_the_share_is_held_out_and_another_file_moves_none():
    files = [f"{n}.ogg" for n in range(400)]
    train, test = held_out_files(files, 0.25)
    assert len(test) == pytest.approx(100, abs=25)
    more = held_out_files([*files, "new.ogg"], 0.25)
    assert set(train) <= set(more[0])
    assert set(test) <= set(more[1])
    with pytest.raises(GivenError, match="of two files or more"):
        held_out_files(["a"], 0.5)


def clips():
    emotions = ["anger", "anger", "neutral", "anger", "anger"]
    speakers = ["s0", "s0", "s0", "s1", "s0"]
    return [
        Clip(Path(f"{n}"), "x", who, "", what) for n, (who, what) in enumerate(zip(speakers, emotions, strict=True))
    ]


def test_only_the_same_label_and_speaker_are_stacked_and_only_from_those_given():
    partners = Partners(clips(), [0, 1, 2, 3])
    random = np.random.default_rng(0)
    assert {partners.of(0, random) for _ in range(20)} == {1}
    assert {partners.of(4, random) for _ in range(40)} == {0, 1}
    assert partners.of(3, random) is None
    assert partners.of(0, random, "neutral") == 2
    assert {Partners(clips(), [0, 1, 2, 3], same_speaker=False).of(0, random) for _ in range(40)} == {1, 3}


def test_what_is_appended_is_brought_near_in_level():
    loud, soft = voice(), 0.01 * voice(seed=1)
    both = joined(loud, soft, np.random.default_rng(0))
    assert np.array_equal(both[:RATE_HZ], loud)
    assert level_db(both[-RATE_HZ:]) == pytest.approx(level_db(loud) - 6.0, abs=0.1)


def test_emotion_amid_neutral_speech_is_where_it_is_said_to_be():
    emotional, neutral = voice(0.5), voice(0.7, 90.0)
    places = set()
    for seed in range(8):
        placed = amid_neutral(emotional, neutral, np.random.default_rng(seed))
        assert np.array_equal(placed.sound[placed.first : placed.last], emotional)
        places.add(placed.first > 0)
    assert places == {False, True}


def test_a_warp_moves_a_peak_by_its_factor():
    edges = np.linspace(*(2595 * np.log10(1 + hz / 700) for hz in (60.0, 7_800.0)), 50)
    middle_hz = 700 * (10 ** (edges[1:-1] / 2595) - 1)
    bands = np.exp(-0.5 * np.square((np.arange(48) - 20) / 2.0)).astype(np.float32)[None]
    for warp in (0.9, 1.1):
        moved = vtlp(bands, warp, 60.0, 7_800.0)
        assert moved.dtype == np.float32
        assert moved.shape == bands.shape
        centre_hz = np.exp((np.log(middle_hz) * moved[0]).sum() / moved[0].sum())
        before_hz = np.exp((np.log(middle_hz) * bands[0]).sum() / bands[0].sum())
        assert centre_hz / before_hz == pytest.approx(warp, abs=0.02)
    assert np.array_equal(vtlp(bands, 1.0, 60.0, 7_800.0), bands)
    flat = np.full((3, 4, 48), 2.0)
    assert np.allclose(vtlp(flat, 1.1, 60.0, 7_800.0), flat)
