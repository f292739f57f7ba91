"""Takes of recordings: the same for the same seed, within bounds, and a speaker keeps what a speaker would keep."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.models.data.clips import Clip
from clser.models.data.stacks import Partners, Stacked, Stacks
from clser.models.data.takes import Surroundings, clean_take, disturbed_take
from clser.models.plan import Stacking, Takes

RATE_HZ = 16_000
NOISE = np.random.default_rng(1).standard_normal(4_000).astype(np.float32)
CLIPS = [Clip(Path(f"{n}.wav"), "x", f"s{n // 2}", "", "anger") for n in range(4)]


def voice(silent=0.5):
    still = np.zeros(round(silent * RATE_HZ))
    return np.concatenate((still, 0.3 * np.sin(np.pi / 40 * np.arange(RATE_HZ)), still)).astype(np.float32)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_a_take_is_the_same_for_the_same_seed_and_stays_within_bounds(seed):
    change = disturbed_take(1, CLIPS, Takes(noise=0.5, rooms=0.5, codecs=0.5), Surroundings({"n": NOISE})).change
    one, same, other = (change(voice(), 0, np.random.default_rng(n)) for n in (seed, seed, seed + 1))
    assert np.array_equal(one, same)
    assert len(one) != len(other) or not np.array_equal(one, other)
    assert one.dtype == np.float32
    assert np.abs(one).max() <= 1.0


def test_settings_and_sounds_make_the_digest():
    noisy, twice = Surroundings({"n": NOISE}), Surroundings({"n": 2 * NOISE})
    kinds = [(Takes(), noisy), (Takes(codecs=0.5), noisy), (Takes(), twice), (Takes(), Surroundings({}, {"n": NOISE}))]
    assert len({disturbed_take(1, CLIPS, takes, around).digest for takes, around in kinds}) == 4
    again = Surroundings({"n": NOISE.copy()})
    assert disturbed_take(1, CLIPS, Takes(), again).digest == disturbed_take(1, CLIPS, Takes(), noisy).digest
    assert disturbed_take(2, CLIPS, Takes(), noisy).digest != disturbed_take(1, CLIPS, Takes(), noisy).digest


def test_a_speaker_keeps_the_gain_and_another_has_another():
    change = disturbed_take(1, CLIPS, Takes(noise=0.0), Surroundings()).change
    peaks = [np.abs(change(voice(), n, np.random.default_rng(5))).max() for n in range(4)]
    assert peaks[0] == peaks[1] != pytest.approx(peaks[2])
    assert peaks[2] == peaks[3]


def test_takes_with_stacked_clips_hang_on_who_may_follow():
    def take(indices):
        behind = Stacks(Partners(CLIPS, indices), [1.0] * 4, Stacking(), 1.0).planned(1)
        return disturbed_take(1, CLIPS, Takes(noise=0.0), Surroundings(), Stacked(behind, lambda _: voice()))

    assert not take([0, 1]).alone
    assert take([0, 1]).digest != take([0, 1, 2, 3]).digest
    assert len(take([0, 1]).change(voice(), 0, np.random.default_rng(0))) > 2 * RATE_HZ


def test_a_corpus_of_which_some_was_cut_is_cut_throughout():
    cut = Clip(Path("c.wav"), "x", "s9", "", "fear", truncated=True, duration_s=0.5)
    change = disturbed_take(1, [*CLIPS, cut], Takes(noise=0.0), Surroundings()).change
    heard = change(voice(silent=0.0), 0, np.random.default_rng(0))
    assert len(heard) < (0.5 + 0.4 + 0.25) * RATE_HZ / 0.9 + 1


def test_the_clean_take_is_cut_about_its_speech_and_nothing_else():
    heard = clean_take().change(voice(), 0, np.random.default_rng(0))
    assert np.array_equal(heard, voice()[round(0.2 * RATE_HZ) : round(1.65 * RATE_HZ)])
