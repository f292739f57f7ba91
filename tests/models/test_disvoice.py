"""The 103 features against numbers that DisVoice 0.1.10 itself gave for the same sound and the same pitch.

The golden file holds what its functions (prosody_functions.py, scipy 1.17) said of `cases()`; its numbers that are none are
zeros here.
"""

from pathlib import Path

import numpy as np
import pytest
from disvoice_cases import HOP, RATE_HZ, cases, sound

from clser.models.features.disvoice import NAMES, disvoice, pitch

GOLDEN = Path(__file__).parents[1] / "golden" / "disvoice.npz"


@pytest.mark.parametrize("name", cases())
def test_the_numbers_are_those_of_the_original(name):
    with np.load(GOLDEN) as golden:
        wanted = np.nan_to_num(golden[name])
    np.testing.assert_allclose(disvoice(*cases()[name]), wanted, rtol=1e-6, atol=1e-9)


def test_every_feature_has_its_own_name():
    assert len(NAMES) == len(set(NAMES)) == 103
    wanted = {1: "F0avg", 8: "F0mseavg", 19: "1F0mean", 30: "lastF0ku", 34: "kurtosisEvoiced", 45: "max1Evoiced"}
    wanted |= {55: "avgEunvoiced", 79: "Vrate", 84: "maxdurvoiced", 92: "avgdurpause", 98: "PVU", 103: "UP"}
    assert {number: NAMES[number - 1] for number in wanted} == wanted


def test_loudness_and_a_constant_make_no_difference():
    pcm, f0_T = cases()["speech"]
    np.testing.assert_allclose(disvoice(0.01 * pcm + 0.3, f0_T), disvoice(pcm, f0_T), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("pcm", [np.zeros(0), np.zeros(100), np.zeros(RATE_HZ), np.full(RATE_HZ, 0.5)])
def test_nothing_said_is_all_zeros(pcm):
    assert not disvoice(pcm, np.zeros(len(pcm) // HOP)).any()


def test_the_only_voiced_frame_being_the_last_is_no_reason_to_stop():
    f0_T = np.zeros(40)
    f0_T[-1] = 120.0
    found = disvoice(sound(f0_T, 1), f0_T)
    assert found[NAMES.index("F0avg")] == 120.0
    assert np.isfinite(found).all()


def test_digital_silence_between_words_stays_within_bounds():
    pcm, f0_T = cases()["speech"]
    pcm[np.repeat(f0_T == 0, HOP)] = 0.0
    assert np.abs(disvoice(pcm - pcm.mean(), f0_T)).max() < 1e5


@pytest.mark.torch
def test_without_a_contour_the_pitch_is_our_own():
    pytest.importorskip("torch")
    pcm, f0_T = cases()["speech"]
    own_T = pitch(pcm)
    assert own_T.shape == f0_T.shape
    both = (own_T > 0) & (f0_T > 0)
    assert ((own_T > 0) == (f0_T > 0)).mean() > 0.95
    assert np.median(np.abs(own_T / np.maximum(f0_T, 1) - 1)[both]) < 0.01
    found, wanted = disvoice(pcm), disvoice(pcm, f0_T)
    assert np.array_equal(found, disvoice(pcm, own_T))
    for name in ("F0avg", "F0max", "avgEvoiced", "Vrate", "avgdurvoiced"):
        at = NAMES.index(name)
        assert abs(found[at] / wanted[at] - 1) < 0.1, name
