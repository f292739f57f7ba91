"""Prosody, streamed: pitch, voicing, loudness, speaking rate and the voice's quality, one frame every 10 ms.

Letters: B rows, S samples, T frames of 10 ms, N samples at 4 kHz, L lags (evenly spaced in octaves), K hops or frames
kept from before, C what is kept of one, F fields.

The pitch is found by the normalised cross-correlation of a hop with what lies one period before it (Talkin 1995, "A
robust algorithm for pitch tracking"), summed over three hops. A best path through the last frames' correlations, of
bounded length, stands in for his dynamic programming: the state stays small and no frame waits for another. All is
products with fixed matrices, maxima over neighbours and sums, so it runs in any ONNX runtime.

It runs live for every stream, where small tensors cost by their number: what several steps need is computed at once.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.features.constants import HOP_SAMPLES, SAMPLE_RATE_HZ
from clser.models.features.spectrum import between, hann
from clser.models.tensors import from_step

FIELDS = ("log_f0", "voicing", "energy", "rate", "jitter", "shimmer", "hnr", "tilt", "centroid")
"""log_f0: octaves above 150 Hz, and 0 where voicing is below a half (a speaker's own mean would be one more state).
voicing: how likely the frame is voiced, 0..1.              energy: units of 20 dB, 0 at 50 dB below full scale.
rate: syllables of the last two seconds, 1 at 4 a second.   jitter: per cent of a period.    shimmer: dB.
hnr: harmonics over noise, units of 10 dB.   tilt: of the spectrum, units of 10 dB an octave.   centroid: kHz.

Pitch, voicing, jitter, shimmer and hnr speak of the sound `PITCH_DELAY_MS` before the end of their frame, energy, tilt
and centroid of its last 25 ms.
"""
NEUTRAL_HZ = 150.0
USUAL_RATE = 4.0  # syllables a second
VOICED = 0.5
SILENCE = 1e-9  # mean square of what counts as nothing: 90 dB below full scale

LOW_RATE_HZ = 4_000
LOW_HOP = HOP_SAMPLES * LOW_RATE_HZ // SAMPLE_RATE_HZ
TAPS = 480  # of the filter before the 4 kHz: 15 ms of delay buy a flank that keeps hum and rumble out
PASS_HZ = (55.0, 1_600.0)
SOUND_HOPS = 1 + TAPS // HOP_SAMPLES
PERIOD_HOPS = 3  # a hop and what lies before it: the longest lag, and room to interpolate around it
SINC_REACH = 6
PER_OCTAVE = 30

SUM_HOPS = 3
PATH_BACK, PATH_AHEAD = 2, 1  # frames before and after the one that is decided
HOPS_KEPT = SUM_HOPS + PATH_BACK + PATH_AHEAD - 1  # hops whose products later frames still add up
STEP = 2  # lags the pitch may move in 10 ms without a cost: 1/15 of an octave
JUMP_COST = 0.25
OCTAVE_COST = 0.03  # what an octave lower must be better by: twice a period is a period too
PITCH_DELAY_MS = 1e3 * TAPS / 2 / SAMPLE_RATE_HZ + 10.0 * (SUM_HOPS / 2 + PATH_AHEAD) + 4.0  # half a period lies before

QUIET_DB, QUIETEST_DB = -20.0, -40.0  # against the loudest of the past: where silence begins, and where it is certain
VOICING_WEIGHTS = (10.5, 0.4, -6.1)  # of the correlation, of the dB above QUIET_DB, and a bias: a logistic fit
NEAR = 4  # lags around the pitch among which a single hop's period is looked for

WINDOW = 400
BIN_HZ = 62.5
BANDS, LOWEST_BAND_HZ, HIGHEST_BAND_HZ = 10, 150.0, 5_000.0
BAND_FLOOR = 1e-7  # of the power of the frame, for one bin: what lies below it is the recorder's

RATE_FRAMES, RATE_PRIOR_FRAMES = 200, 30.0
SMOOTH, REACH = 5, 5  # a syllable's nucleus is the loudest smoothed frame within this many to either side
DIP_FRAMES, DIP_DB = 15, 2.0  # and stands this much above the quietest of these before it
PAST_FRAMES = RATE_FRAMES - 1 + SMOOTH - 1 + DIP_FRAMES - 1 + REACH
QUALITY_FRAMES = 5
MOST_JITTER, MOST_SHIMMER = 10.0, 6.0


class ProsodyState(NamedTuple):
    """What later frames reach back to. Zeros: nothing was heard yet."""

    hops_BKC: Tensor
    """Of the last hops: the sound, the samples at 4 kHz, the products at each lag, the energies, its own energy."""
    past_BKC: Tensor
    """Of the last 2 s, frame by frame: level, voiced, period, gain over the period before."""


class Prosody(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """pcm_BS [B, T*160], how many frames of each row are real, and a state -> [B, T, F] (see FIELDS) and the state."""

    samples = HOP_SAMPLES
    width = len(FIELDS)

    def __init__(self, lowest_hz: float = 60.0, highest_hz: float = 550.0) -> None:
        super().__init__()
        assert 55.0 <= lowest_hz < highest_hz <= LOW_RATE_HZ / (SINC_REACH + 1)
        self.lags = 1 + math.ceil(PER_OCTAVE * math.log2(highest_hz / lowest_hz))
        octave_L = torch.arange(self.lags, dtype=torch.float64) / PER_OCTAVE
        self.neutral_lag = PER_OCTAVE * math.log2(highest_hz / NEUTRAL_HZ)
        fixed = {"decimate_SN": _decimation(), "cost_L": OCTAVE_COST * octave_L, "lag_L": PER_OCTAVE * octave_L}
        fixed |= _cross_correlation(LOW_RATE_HZ / highest_hz * 2.0**octave_L) | _spectrum() | _differences()
        for name, value in fixed.items():
            self.register_buffer(name, value.float(), persistent=False)

    def start(self, rows: int) -> ProsodyState:
        """The state before the first frame."""
        zeros = self.cost_L.new_zeros
        kept = HOP_SAMPLES + LOW_HOP + 2 * self.lags + 1
        return ProsodyState(zeros(rows, HOPS_KEPT, kept), zeros(rows, PAST_FRAMES, 4))

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: ProsodyState) -> tuple[Tensor, ProsodyState]:
        """The fields of each frame, and the state after each row's own `frames_B` frames."""
        sizes = (HOP_SAMPLES, LOW_HOP, 2 * self.lags + 1)
        sound_BKS, low_BKN, lags_BKL = state.hops_BKC.split(sizes, 2)
        hop_BTS = pcm_BS.reshape(state.hops_BKC.shape[0], -1, HOP_SAMPLES)
        sound_BTS = _windows(sound_BKS, hop_BTS, SOUND_HOPS)
        low_BTN = sound_BTS @ self.decimate_SN
        lags_BTL = self._correlate(_windows(low_BKN, low_BTN, PERIOD_HOPS), low_BTN)
        hops_BTC = torch.cat((state.hops_BKC, torch.cat((hop_BTS, low_BTN, lags_BTL), 2)), 1)

        lag_BT1, strength_BT1, seen_BT3 = self._pitch(torch.cat((lags_BKL, lags_BTL), 1))
        voicing_BT1, voiced_BT1 = _voicing(strength_BT1, torch.cat((state.past_BKC[..., :1], seen_BT3[..., :1]), 1))
        new_BTC = torch.cat((seen_BT3[..., :1], voiced_BT1, seen_BT3[..., 1:]), 2)
        past_BTC = torch.cat((state.past_BKC, new_BTC), 1)
        past_BCT = past_BTC.transpose(1, 2)
        slow_BT3 = torch.cat((_rate(past_BCT), self._perturbation(past_BCT)), 1).transpose(1, 2)
        log_f0_BT1 = voiced_BT1 * (self.neutral_lag - lag_BT1) / PER_OCTAVE
        energy_BT1, *shape_BT1 = self._spectral(sound_BTS)
        fields = (log_f0_BT1, voicing_BT1, energy_BT1, slow_BT3, _hnr(strength_BT1), *shape_BT1)
        kept = (from_step(hops_BTC, HOPS_KEPT, frames_B), from_step(past_BTC, PAST_FRAMES, frames_B))
        return torch.cat(fields, 2), ProsodyState(*kept)

    def _correlate(self, windows_BTN: Tensor, low_BTN: Tensor) -> Tensor:
        """[B, T, 2L+1]: a hop's product with the sound each lag before it, that sound's energy, the hop's own energy."""
        spectra = (low_BTN @ self.hop_NK) * (windows_BTN @ self.window_NK)
        return torch.cat((spectra @ self.lag_KL, windows_BTN.square() @ self.energy_NL), 2)

    def _pitch(self, lags_BTL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pitch's lag, the correlation there; and of the frame the level, of its newest hop period and gain."""
        sums_BTL = _from(lags_BTL, 0, SUM_HOPS)
        for k in range(1, SUM_HOPS):
            sums_BTL = sums_BTL + _from(lags_BTL, k, SUM_HOPS)
        match_BTL = self._normalised(sums_BTL)
        score_BTL = match_BTL - self.cost_L
        path = PATH_BACK + 1 + PATH_AHEAD
        best_BTL = _from(score_BTL, 0, path)
        for k in range(1, PATH_BACK + 1):
            best_BTL = _from(score_BTL, k, path) + _moved(best_BTL)
        next_BTL = _from(score_BTL, path - 1, path)
        for k in range(path - 2, PATH_BACK, -1):
            next_BTL = _from(score_BTL, k, path) + _moved(next_BTL)
        at_BT1 = (best_BTL + _moved(next_BTL)).argmax(2, keepdim=True)

        newest_BTL = _from(lags_BTL, PATH_BACK + SUM_HOPS - 1, HOPS_KEPT + 1)
        own_match_BTL = self._normalised(newest_BTL)
        far_BTL = (self.lag_L - at_BT1).abs().clamp(NEAR, NEAR + 2)
        own_at_BT1 = (own_match_BTL - far_BTL).argmax(2, keepdim=True)
        both = _vertex(_from(match_BTL, PATH_BACK, path), at_BT1), _vertex(own_match_BTL, own_at_BT1)
        (lag_BT1, strength_BT1), (own_lag_BT1, _) = both
        before_BT1 = newest_BTL[..., self.lags : -1].gather(2, own_at_BT1)
        power_BT1 = _from(sums_BTL, PATH_BACK, path)[..., -1:] / SUM_HOPS
        level_BT3 = _db(torch.cat((power_BT1, newest_BTL[..., -1:], before_BT1), 2) / LOW_HOP)
        level_BT1, now_BT1, before_BT1 = level_BT3.split(1, 2)
        return lag_BT1, strength_BT1, torch.cat((level_BT1, own_lag_BT1, now_BT1 - before_BT1), 2)

    def _normalised(self, lags_BTL: Tensor) -> Tensor:
        """McLeod 2005, eq. 9: twice the products over the sum of both energies, so that an onset is like nothing."""
        product, energy, own = lags_BTL.split((self.lags, self.lags, 1), 2)
        return 2.0 * product / (energy + (own + SILENCE * LOW_HOP))

    def _perturbation(self, past_BCT: Tensor) -> Tensor:
        """[B, 2, T], jitter and shimmer: how far period and gain leave the line of their neighbours, over some frames."""
        late_BCT = past_BCT[..., PAST_FRAMES - QUALITY_FRAMES - 1 :]
        trio_B1T = -functional.max_pool1d(-late_BCT[:, 1:2], 3, 1)
        leave_B2T = functional.conv1d(late_BCT[:, 2:], self.difference_C1K, groups=2).abs().clamp_max(1.0)
        sums_B3T = functional.avg_pool1d(torch.cat((leave_B2T * trio_B1T, trio_B1T), 1), QUALITY_FRAMES, 1)
        return sums_B3T[:, :2] / (sums_B3T[:, 2:] + 1e-3) * self.most_C1

    def _spectral(self, sound_BTS: Tensor) -> list[Tensor]:
        """Energy, tilt and centroid, each [B, T, 1]."""
        half, end = WINDOW // 2, SOUND_HOPS * HOP_SAMPLES
        # Cosines are symmetric about the window's middle, sines the opposite: products half the size do.
        first, second = sound_BTS[..., end - WINDOW : end - half], sound_BTS[..., end - half :].flip(-1)
        waves_BTK = torch.cat(((first + second) @ self.cos_SK, (first - second) @ self.sin_SK), 2)
        power_BT1, moment_BT1, bands_BTM = (waves_BTK.square() @ self.band_KM).split((1, 1, BANDS), 2)
        power_BT1 = power_BT1 + SILENCE
        log_BTM = torch.log(torch.cat((bands_BTM + BAND_FLOOR * power_BT1, power_BT1), 2))
        return [*(log_BTM @ self.line_MC + self.line_C).split(1, 2), moment_BT1 / power_BT1]


def f0_hz(x_BTF: Tensor) -> Tensor:
    """[B, T]: the pitch of a track in Hz, 0 where it is unvoiced."""
    voiced_BT = (x_BTF[..., FIELDS.index("voicing")] > VOICED).to(x_BTF.dtype)
    return voiced_BT * NEUTRAL_HZ * 2.0 ** x_BTF[..., FIELDS.index("log_f0")]


def _windows(kept_BKN: Tensor, hops_BTN: Tensor, count: int) -> Tensor:
    """[B, T, count * N]: each hop with those just before it."""
    joined_BTN = torch.cat((kept_BKN[:, HOPS_KEPT - count + 1 :], hops_BTN), 1)
    return torch.cat([_from(joined_BTN, k, count) for k in range(count)], 2)


def _from(x_BTD: Tensor, first: int, count: int) -> Tensor:
    """The steps from `first` on, so many that `count` such views, each a step later, just reach the end."""
    return x_BTD[:, first : first - count + 1 or None]


def _moved(best_BTL: Tensor) -> Tensor:
    """The best a neighbouring frame offers to each lag: from near it, or from anywhere at a cost."""
    near_BTL = functional.max_pool1d(best_BTL, 2 * STEP + 1, 1, STEP)
    return torch.maximum(near_BTL, best_BTL.amax(2, keepdim=True) - JUMP_COST)


def _vertex(match_BTL: Tensor, at_BT1: Tensor) -> tuple[Tensor, Tensor]:
    """Place (in lags) and height of the parabola through a maximum and its neighbours."""
    middle_BT1 = at_BT1.clamp(1, match_BTL.shape[2] - 2)
    three = match_BTL.gather(2, torch.cat((middle_BT1 - 1, middle_BT1, middle_BT1 + 1), 2))
    left, top, right = three.split(1, 2)
    rise = right - left
    shift = (0.5 * rise / (2.0 * top - left - right).clamp_min(1e-6)).clamp(-1.0, 1.0)
    return middle_BT1 + shift, top + 0.25 * rise * shift


def _db(power: Tensor) -> Tensor:
    """Decibels above silence, and at least one: zero is left for what was never heard."""
    return torch.log(power * (1.0 / SILENCE) + 1.0) * (10.0 / math.log(10.0)) + 1.0


def _voicing(strength_BT1: Tensor, level_BT1: Tensor) -> tuple[Tensor, Tensor]:
    """How likely, and yes or no. The levels begin PAST_FRAMES before the strengths."""
    loudest_BT1 = functional.max_pool1d(level_BT1.transpose(1, 2), PAST_FRAMES + 1, 1).transpose(1, 2)
    below_BT1 = (level_BT1[:, PAST_FRAMES:] - loudest_BT1).clamp(QUIETEST_DB, QUIET_DB) - QUIET_DB
    of_strength, of_level, bias = VOICING_WEIGHTS
    voicing_BT1 = torch.sigmoid(of_strength * strength_BT1 + of_level * below_BT1 + bias)
    return voicing_BT1, (voicing_BT1 > VOICED).to(voicing_BT1.dtype)


def _hnr(strength_BT1: Tensor) -> Tensor:
    """Boersma 1993, eq. 4, in units of 10 dB."""
    r_BT1 = strength_BT1.clamp(0.01, 0.9999)
    return torch.log(r_BT1 / (1.0 - r_BT1)) * (1.0 / math.log(10.0))


def _rate(past_BCT: Tensor) -> Tensor:
    """[B, 1, T]: syllables' nuclei among the last frames, shrunk to the usual while little was heard."""
    level_B1T, voiced_B1T = past_BCT[:, :1], past_BCT[:, 1:2]
    smooth_B1T = functional.avg_pool1d(level_B1T, SMOOTH, 1)
    before = DIP_FRAMES - 1  # frames that only the dip needs, and REACH that only the peak does
    here_B1T = smooth_B1T[..., before:-REACH]
    peak_B1T = functional.max_pool1d(smooth_B1T[..., before - REACH :], 2 * REACH + 1, 1)
    dip_B1T = -functional.max_pool1d(-smooth_B1T[..., :-REACH], DIP_FRAMES, 1)
    stands_B1T = ((here_B1T >= peak_B1T) & (here_B1T > dip_B1T + DIP_DB)).to(level_B1T.dtype)
    late = SMOOTH // 2
    nucleus_B1T = stands_B1T * voiced_B1T[..., before + late : -REACH - late]
    heard_B1T = level_B1T[..., before + REACH + SMOOTH - 1 :].clamp_max(1.0)
    means_B2T = functional.avg_pool1d(torch.cat((nucleus_B1T, heard_B1T), 1), RATE_FRAMES, 1)
    nuclei_B1T, heard_B1T = means_B2T.split(1, 1)
    prior = RATE_PRIOR_FRAMES / RATE_FRAMES
    return (nuclei_B1T * (SAMPLE_RATE_HZ / HOP_SAMPLES / USUAL_RATE) + prior) / (heard_B1T + prior)


def _decimation() -> Tensor:
    """[TAPS + HOP, LOW_HOP]: a window of sound to the newest hop's samples at 4 kHz, hum and high sound taken away."""
    n = torch.arange(TAPS, dtype=torch.float64) - (TAPS - 1) / 2
    low, high = (2 * hz / SAMPLE_RATE_HZ for hz in PASS_HZ)
    taps = (high * torch.sinc(high * n) - low * torch.sinc(low * n)) * hann(TAPS).double()
    taps = taps - hann(TAPS).double() * (taps.sum() / hann(TAPS).double().sum())
    matrix = torch.zeros(TAPS + HOP_SAMPLES, LOW_HOP, dtype=torch.float64)
    for k in range(LOW_HOP):
        end = TAPS + (k + 1) * HOP_SAMPLES // LOW_HOP
        matrix[end - TAPS : end, k] = taps
    return matrix


def _cross_correlation(lag_L: Tensor) -> dict[str, Tensor]:
    """The matrices that take a hop and its window to products and energies at these lags (in samples, not whole ones).

    The product goes by way of a transform of the window's own length: at lags within the window nothing wraps round.
    """
    size = PERIOD_HOPS * LOW_HOP
    longest = size - LOW_HOP
    bins = torch.arange(size // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi / size * torch.arange(size, dtype=torch.float64)[:, None] * bins
    whole = torch.arange(longest + 1, dtype=torch.float64)  # whole lags: lag n starts `longest - n` into the window
    away = lag_L - whole[:, None]
    sinc = torch.sinc(away) * (0.5 + 0.5 * torch.cos(math.pi * (away / SINC_REACH).clamp(-1.0, 1.0)))
    back = angle[:LOW_HOP].new_tensor(2 * math.pi / size) * bins[:, None] * (longest - whole)
    share = torch.where((bins == 0) | (bins == size // 2), 1.0, 2.0)[:, None] / size
    covered = torch.arange(size)[:, None] - (longest - torch.arange(longest + 1))  # of each sample by each whole lag
    energies = ((covered >= 0) & (covered < LOW_HOP)).double()
    between = (1.0 - away.abs()).clamp_min(0.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    re, im = (share * torch.cos(back)) @ sinc, (share * -torch.sin(back)) @ sinc
    # (re - i im) of the hop times (re + i im) of the window, its four real products side by side.
    return {
        "hop_NK": torch.cat((cos, sin, cos, sin), 1)[:LOW_HOP],
        "window_NK": torch.cat((cos, sin, -sin, cos), 1),
        "lag_KL": torch.cat((re, re, im, im)),
        "energy_NL": torch.cat((energies @ between, energies[:, :1]), 1),
    }


def _spectrum() -> dict[str, Tensor]:
    """A folded window to cosines and sines; their squares to mean square, its first moment in kHz, and bands.

    And the logarithms of bands and mean square to energy and tilt.
    """
    hz = BIN_HZ * torch.arange(1, round(SAMPLE_RATE_HZ / 2 / BIN_HZ), dtype=torch.float64)
    seconds = (torch.arange(WINDOW // 2, dtype=torch.float64) - (WINDOW - 1) / 2) / SAMPLE_RATE_HZ
    angle, window = 2 * math.pi * seconds[:, None] * hz, hann(WINDOW).double()
    # Parseval, both halves of the spectrum. What lies below 75 Hz is the recorder's.
    share = (hz > 75.0).double() * 2.0 * BIN_HZ / (SAMPLE_RATE_HZ * window.square().sum())
    edge = torch.logspace(math.log2(LOWEST_BAND_HZ), math.log2(HIGHEST_BAND_HZ), BANDS + 2, 2.0, dtype=torch.float64)
    bands = between(edge, hz)
    columns = torch.cat((share[:, None], (share * hz / 1e3)[:, None], share[:, None] * bands / bands.sum(0)), 1)
    octave = torch.log2(edge[1:-1])
    line = torch.zeros(BANDS + 1, 2, dtype=torch.float64)
    line[BANDS, 0] = 0.5 / math.log(10.0)
    line[:BANDS, 1] = (octave - octave.mean()) / (octave - octave.mean()).square().sum() / math.log(10.0)
    waves = {
        "cos_SK": window[: WINDOW // 2, None] * torch.cos(angle),
        "sin_SK": window[: WINDOW // 2, None] * torch.sin(angle),
    }
    return waves | {"band_KM": torch.cat((columns, columns)), "line_MC": line, "line_C": torch.tensor([2.5, 0.0])}


def _differences() -> dict[str, Tensor]:
    """Second differences of periods (octaves) and first ones of gains (dB, themselves differences), as shares of the most."""
    most = torch.tensor([MOST_JITTER, MOST_SHIMMER])
    # Small steps of a logarithm are steps by a share.
    per_cent = 100.0 * math.log(2.0) / PER_OCTAVE
    kernels = torch.tensor([[-0.5 * per_cent, per_cent, -0.5 * per_cent], [0.0, -1.0, 1.0]])
    return {"difference_C1K": (kernels / most[:, None])[:, None], "most_C1": most[:, None]}
