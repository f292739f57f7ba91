"""Log-mel as a front: what it forgets and what it keeps. Its streaming is tested with all fronts."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import pytest

torch = pytest.importorskip("torch")

from clser.models.features.constants import FRAME_SAMPLES
from clser.models.features.framing import Framing
from clser.models.features.logmel import FEATURES, LOW_SAMPLES, TAIL_SAMPLES, LogMel
from clser.models.features.spectrum import PowerSpectrum, hamming, triangles

pytestmark = pytest.mark.torch


def test_frames_and_state_have_the_sizes_that_are_named():
    logmel = LogMel()
    assert (logmel.samples, logmel.width) == (FRAME_SAMPLES, FEATURES)
    features, state = logmel(torch.zeros(3, 2 * FRAME_SAMPLES), torch.tensor([2, 1, 0]), logmel.start(3))
    assert features.shape == (3, 2, FEATURES)
    assert [tuple(part.shape) for part in state] == [(3, TAIL_SAMPLES), (3, LOW_SAMPLES)]


def test_a_rows_tail_is_the_end_of_its_own_sound():
    pcm_BS = torch.randn(3, 4 * FRAME_SAMPLES, generator=torch.Generator().manual_seed(0))
    logmel = LogMel()
    begun = logmel(pcm_BS, torch.tensor([4, 4, 4]), logmel.start(3))[1]
    _, state = logmel(pcm_BS, torch.tensor([4, 1, 0]), begun)
    for row, frames in enumerate((4, 1)):
        end = frames * FRAME_SAMPLES
        assert torch.equal(state.tail_BS[row], pcm_BS[row, end - TAIL_SAMPLES : end])
    assert torch.equal(state.tail_BS[2], begun.tail_BS[2])
    assert torch.equal(state.low_BS[2], begun.low_BS[2])


@pytest.mark.parametrize(("window", "hop"), [(7, 3), (4, 3), (8, 4), (9, 4)])
def test_a_window_ends_with_its_hop_whatever_their_ratio(window, hop):
    framing, sound_BS = Framing(window, hop), torch.arange(1.0, 5 * hop + 1)[None]
    past_BKH = torch.zeros(1, framing.kept, hop)
    expected = torch.nn.functional.pad(sound_BS, (window - hop, 0)).unfold(1, window, hop)
    assert torch.equal(framing.cut(past_BKH, sound_BS), expected)
    kept = framing.keep(past_BKH, sound_BS, torch.tensor([4]))
    assert torch.equal(framing.cut(kept, sound_BS[:, 4 * hop :]), expected[:, 4:])


@pytest.mark.parametrize("window", [400, 640])
def test_a_power_spectrum_is_that_of_a_transform(window):
    x_TW = torch.randn(5, window, generator=torch.Generator().manual_seed(1))
    power = PowerSpectrum(hamming(window))
    expected = torch.fft.rfft(x_TW * hamming(window)).abs().square()
    assert torch.allclose(power(x_TW), expected[:, power.bins], rtol=1e-4, atol=1e-3)


def test_mel_triangles_stand_on_every_bin_between_their_edges_and_have_the_area_asked_for():
    tall, even = (triangles(48, 400, 16_000, 60.0, 7_800.0, unit_area=unit) for unit in (False, True))
    assert torch.allclose(even.sum(0), torch.ones(48))
    assert tall.max() <= 1.0
    # Between the first and the last middle neighbouring triangles add up to one.
    assert torch.allclose(tall[5:185].sum(1), torch.ones(180), atol=1e-5)
