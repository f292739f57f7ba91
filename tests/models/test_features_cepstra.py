"""MFCC as torchaudio has them, cepstra of linear prediction by the book, slopes that wait for nothing."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

torch = pytest.importorskip("torch")

from streams import front_case, play_whole
from torchaudio_says import BANDS, EVERY, FRAMINGS, sound, torchaudio_says

from clser.models.features.cepstra import (
    COEFFICIENTS,
    EMPHASIS,
    NOISE,
    POWER_FLOOR,
    STATIC,
    Deltas,
    PredictionCepstrum,
    cepstrum_of,
    levinson,
    lpcc,
    mfcc,
)
from clser.models.features.spectrum import hamming

pytestmark = pytest.mark.torch
GOLDEN = Path(__file__).parents[1] / "golden" / "torchaudio.npz"
CLOSE = 1e-4


def whole_frames(hop):
    """As much of the sound as fills frames."""
    pcm_S = sound()
    return pcm_S[None, : len(pcm_S) // hop * hop]


def near(ours, theirs, usual=None):
    """To 1e-4 of the value itself, or of its column's usual size where it passes zero; a slope's is that of what it is of."""
    usual = np.abs(theirs if usual is None else usual).mean(0)
    assert ours.shape == theirs.shape
    return bool((np.abs(ours - theirs) <= CLOSE * (np.abs(theirs) + usual)).all())


def compare_with_torchaudio(framing, said, every):
    """`said` holds every n-th frame of theirs."""
    window, hop = FRAMINGS[framing]
    front, pcm_BS = mfcc(window, hop, bands=BANDS), whole_frames(hop)
    frames = pcm_BS.shape[1] // hop
    frames_BTS = front.framing.cut(front.start(1).past_BKH, pcm_BS)
    ours = play_whole(front_case(front), pcm_BS)[0][0].numpy()
    at = np.arange(0, frames, every)
    theirs = {name: said[name][: len(at)] for name in ("mel", "mfcc", "delta", "delta2")}
    assert near(front.static.mel(frames_BTS)[0].numpy()[::every], theirs["mel"])
    assert near(ours[::every, :COEFFICIENTS], theirs["mfcc"][:, 1:STATIC])
    # Theirs are centred: ours say the same two frames later, and their second slope's start has another padding.
    for name, column, late, first in (("delta", STATIC, 2, 0), ("delta2", 2 * STATIC, 4, 2)):
        kept = at[(at >= first) & (at + late < frames)]
        found = ours[kept + late, column : column + COEFFICIENTS]
        assert near(found, theirs[name][kept // every, 1:STATIC], theirs["mfcc"][:, 1:STATIC]), name


@pytest.mark.parametrize("framing", FRAMINGS)
def test_mel_mfcc_and_slopes_are_those_torchaudio_once_gave(framing):
    with np.load(GOLDEN) as golden:
        said = {name.removeprefix(f"{framing}_"): golden[name] for name in golden.files if name.startswith(framing)}
    compare_with_torchaudio(framing, said, EVERY)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_mel_mfcc_and_slopes_are_those_torchaudio_gives_here(framing):
    pytest.importorskip("torchaudio", reason="torchaudio wants the very torch it was made for", exc_type=Exception)
    compare_with_torchaudio(framing, torchaudio_says(*FRAMINGS[framing]), 1)


def by_the_book(frame):
    """The cepstrum in double precision: the normal equations solved, and the log spectrum of the filter transformed."""
    x = frame.astype(np.float64)
    x = (x - EMPHASIS * np.concatenate((x[:1], x[:-1]))) * hamming(len(x)).double().numpy()
    r = np.array([x[: len(x) - lag] @ x[lag:] for lag in range(COEFFICIENTS + 1)])
    r[0] = r[0] * (1 + NOISE) + POWER_FLOOR
    poles = scipy.linalg.solve_toeplitz(r[:-1], r[1:])
    spectrum = np.fft.rfft(np.concatenate(([1.0], -poles)), 1 << 14)
    # The cepstrum of a filter without zeros outside the unit circle is half on each side of the real cepstrum.
    return 2 * np.fft.irfft(-np.log(np.abs(spectrum)))[1 : COEFFICIENTS + 1]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_prediction_cepstra_are_those_of_the_book(framing):
    window, hop = FRAMINGS[framing]
    front, pcm_BS = lpcc(window, hop), whole_frames(hop)
    frames_TS = front.framing.cut(front.start(1).past_BKH, pcm_BS)[0]
    ours = front.static(frames_TS)[:, :COEFFICIENTS]
    expected = np.stack([by_the_book(frame.numpy()) for frame in frames_TS])
    assert np.abs(ours.numpy() - expected).max() < 2e-3
    assert np.abs(ours.numpy() - expected).mean() < 1e-4


def test_a_known_filter_is_found_again():
    """Noise through 1 / (1 - 1.6 cos(w) z^-1 + 0.64 z^-2): the poles 0.8 exp(+-iw), whose cepstrum is 2 0.8^n cos(wn) / n."""
    w = 0.9
    excitation = 0.1 * np.random.default_rng(3).standard_normal(160_000)
    made = np.zeros_like(excitation)
    for n in range(2, len(made)):
        made[n] = excitation[n] + 1.6 * np.cos(w) * made[n - 1] - 0.64 * made[n - 2]
    r_L = torch.tensor([made[: len(made) - lag] @ made[lag:] for lag in range(COEFFICIENTS + 1)]).float()
    n = np.arange(1, COEFFICIENTS + 1)
    expected = 2 * 0.8**n * np.cos(w * n) / n
    assert np.abs(cepstrum_of(levinson(r_L)).numpy() - expected).max() < 0.01


def test_silence_has_a_flat_spectrum_and_a_tone_stays_finite():
    static = PredictionCepstrum(400)
    tone = torch.sin(torch.arange(400) * 0.3)
    said = static(torch.stack((torch.zeros(400), torch.ones(400), tone, 1e-4 * tone)))
    assert said.isfinite().all()
    assert said[0, :COEFFICIENTS].abs().max() == 0
    assert said.abs().max() < 25


def test_energy_is_the_log_of_the_mean_square():
    static = mfcc(400, 160).static
    energy = static(torch.full((2, 400), 0.1) * torch.tensor([[1.0], [0.0]]))[:, -1]
    assert energy.tolist() == pytest.approx([np.log(0.01), np.log(1e-8)], abs=1e-4)


def test_a_steady_rise_has_its_slope_from_the_fifth_frame_on_and_no_second_slope():
    """Before it the first frame stands for those that were not: no slope at the start, then a growing one."""
    x_BTC = 3.0 + 0.5 * torch.arange(12.0)[None, :, None]
    y_BTC, _ = Deltas(1)(x_BTC, torch.tensor([12]), Deltas(1).start(1))
    slope, second = y_BTC[0, :, 1], y_BTC[0, :, 2]
    assert slope[:2].tolist() == pytest.approx([0.0, 0.1])
    assert slope[4:].tolist() == pytest.approx([0.5] * 8)
    assert second[8:].tolist() == pytest.approx([0.0] * 4, abs=1e-6)
