"""Cepstra with their energy, slopes and slopes of slopes: the 39 numbers a frame that the published systems hear.

Letters: B rows, S samples, T frames, K hops kept, H samples of a hop, W samples of a window, M mel bands, C static numbers,
D numbers of a frame, P order of the prediction, L lags, X any number of axes.

    MFCC: window -> power -> mel bands -> log -> cosine transform -> c1..c12
    LPCC: pre-emphasis -> window -> autocorrelation -> Levinson-Durbin -> cepstrum of the all-pole filter -> c1..c12
    both: c1..c12 and the log energy (13 static), 13 slopes over the last five frames, 13 slopes of those

ACMF-Net cuts windows of 25 ms every 10 ms, HuMP-CAT of 40 ms every 20 ms.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.features.framing import Framing
from clser.models.features.spectrum import PowerSpectrum, hamming, periodic_hann, triangles
from clser.models.tensors import after

COEFFICIENTS = 12
STATIC = COEFFICIENTS + 1
BANDS = 40
BAND_FLOOR = 1e-6
ENERGY_FLOOR = 1e-8  # 80 dB under full scale: less is the recorder's noise
REACH = 4  # a slope takes five frames: this one and four before

EMPHASIS = 0.97
BLOCK = 16  # a divisor of both windows, and no less than the order
NOISE = 1e-4  # white noise 40 dB under the sound keeps the recursion stable in float32, as in ITU-T G.729 (3.2.1)
POWER_FLOOR = 1e-6  # of a whole window: silence has a flat spectrum, and so a cepstrum of zeros


class DeltaState(NamedTuple):
    """The frames that later slopes reach back to. Zeros: no frame yet."""

    past_BKC: Tensor
    seen_B1: Tensor
    """1 once there was a frame, so that the first one can stand for all before it."""


class Deltas(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_BTC -> [B, T, 3C]: each frame, its slope, and the slope of its slope.

    A slope is the least-squares line's through the last five frames: what the usual centred regression says of the frame
    two earlier. So the second slope is that of the frame four earlier. The first frame is repeated before the start.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def start(self, rows: int) -> DeltaState:
        """The state before the first frame."""
        return DeltaState(self.like.new_zeros(rows, 2 * REACH, self.channels), self.like.new_zeros(rows, 1))

    def forward(self, x_BTC: Tensor, length_B: Tensor, state: DeltaState) -> tuple[Tensor, DeltaState]:
        """The state that comes back is that after each row's own `length_B` frames."""
        unseen_B11 = state.seen_B1[..., None] < 0.5
        past_BKC = torch.where(unseen_B11, x_BTC[:, :1], state.past_BKC)
        slope_BTC = _slope(torch.cat((past_BKC, x_BTC), 1))
        second_BTC = _slope(slope_BTC)
        any_B1 = (length_B > 0)[:, None]
        seen_B1 = torch.where(any_B1, torch.ones_like(state.seen_B1), state.seen_B1)
        kept_BKC = torch.where(any_B1[..., None], after(past_BKC, x_BTC, length_B), state.past_BKC)
        return torch.cat((x_BTC, slope_BTC[:, REACH:], second_BTC), 2), DeltaState(kept_BKC, seen_B1)


def _slope(x_BTC: Tensor) -> Tensor:
    """[B, T - 4, C]: of the line through every five frames: the sum of n x(n) over that of n squared, n = -2..2."""
    end = x_BTC.shape[1] - REACH
    near = x_BTC[:, 3 : end + 3] - x_BTC[:, 1 : end + 1]
    far = x_BTC[:, REACH:] - x_BTC[:, :end]
    return (near + 2.0 * far) / 10.0


def log_energy(x_XW: Tensor) -> Tensor:
    """[X, 1]: the log of the mean square."""
    return torch.log(x_XW.square().mean(-1, keepdim=True) + ENERGY_FLOOR)


class MelCepstrum(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_XW -> the mel cepstrum [X, coefficients + 1]: c1 to the last one, and the log energy in c0's place, at the end.

    `bands`, the edges and `floor` are those of a common MFCC: HTK's mel scale, triangles of height one, natural logs and an
    orthonormal cosine transform without a lifter.
    """

    def __init__(
        self,
        window: int,
        *,
        bands: int = BANDS,
        coefficients: int = COEFFICIENTS,
        lowest_hz: float = 0.0,
        highest_hz: float = SAMPLE_RATE_HZ / 2,
        floor: float = BAND_FLOOR,
    ) -> None:
        super().__init__()
        self.floor = floor
        self.power = PowerSpectrum(periodic_hann(window))
        mel_KM = triangles(bands, window, SAMPLE_RATE_HZ, lowest_hz, highest_hz)
        self.register_buffer("mel_KM", mel_KM[self.power.bins], persistent=False)
        self.register_buffer("cosine_MC", _cosines(bands, coefficients), persistent=False)

    def mel(self, x_XW: Tensor) -> Tensor:
        """[X, M]: the power in each band."""
        mel_XM: Tensor = self.power(x_XW) @ self.mel_KM
        return mel_XM

    def forward(self, x_XW: Tensor) -> Tensor:
        return torch.cat((torch.log(self.mel(x_XW) + self.floor) @ self.cosine_MC, log_energy(x_XW)), -1)


def _cosines(bands: int, coefficients: int) -> Tensor:
    """[M, C]: the orthonormal cosine transform's rows 1..C; row 0 is the loudness, which the energy tells."""
    m = torch.arange(bands, dtype=torch.float64) + 0.5
    c = torch.arange(1, coefficients + 1, dtype=torch.float64)
    return (torch.cos(math.pi / bands * m[:, None] * c) * math.sqrt(2.0 / bands)).float()


class PredictionCepstrum(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_XW -> the cepstrum of linear prediction [X, P + 1]: c1..cP, and the log energy at the end.

    The order is that of the cepstrum: the first P coefficients hold all that P poles say, and neither more is left out nor
    more is computed than what is read.
    """

    def __init__(self, window: int, order: int = COEFFICIENTS) -> None:
        super().__init__()
        assert order <= BLOCK and window % BLOCK == 0
        self.order = order
        self.register_buffer("window_W", hamming(window), persistent=False)
        self.register_buffer("lags_GL", _diagonals(order), persistent=False)

    def forward(self, x_XW: Tensor) -> Tensor:
        before_XW = torch.cat((x_XW[..., :1], x_XW[..., :-1]), -1)  # of the sample before the window nothing is known
        windowed_XW = (x_XW - EMPHASIS * before_XW) * self.window_W
        poles_XP = levinson(self.autocorrelation(windowed_XW))
        return torch.cat((cepstrum_of(poles_XP), log_energy(x_XW)), -1)

    def autocorrelation(self, x_XW: Tensor) -> Tensor:
        """[X, P + 1]: the sums of x(n) x(n + lag).

        One product of the window, as a matrix of its blocks, with itself and its blocks moved on by one, holds the products
        of samples at all lags; what is left is to add up its diagonals.
        """
        blocks = x_XW.reshape(*x_XW.shape[:-1], -1, BLOCK)
        moved = torch.cat((blocks[..., 1:, :], torch.zeros_like(blocks[..., :1, :])), -2)
        gram = blocks.transpose(-1, -2) @ torch.cat((blocks, moved), -1)
        lags_XL: Tensor = gram.flatten(-2) @ self.lags_GL
        return lags_XL


def _diagonals(order: int) -> Tensor:
    """[BLOCK * 2 BLOCK, P + 1] of zeros and ones: which entries of the product lie at which lag."""
    lag = torch.arange(2 * BLOCK)[None] - torch.arange(BLOCK)[:, None]
    return (lag.flatten()[:, None] == torch.arange(order + 1)).float()


def levinson(r_XL: Tensor) -> Tensor:
    """[X, P]: the weights a of the best prediction x(n) = a1 x(n-1) + ... + aP x(n-P), by Durbin's recursion, unrolled."""
    order = r_XL.shape[-1] - 1
    backwards_XL = r_XL.flip(-1)
    error = r_XL[..., :1] * (1.0 + NOISE) + POWER_FLOOR
    a = r_XL[..., 1:2] / error
    error = error * (1.0 - a.square())
    for m in range(2, order + 1):
        known = (a * backwards_XL[..., order - m + 1 : order]).sum(-1, keepdim=True)
        reflection = (r_XL[..., m : m + 1] - known) / error
        a = torch.cat((a - reflection * a.flip(-1), reflection), -1)
        error = error * (1.0 - reflection.square())
    return a


def cepstrum_of(a_XP: Tensor) -> Tensor:
    """[X, P]: c1..cP of the filter 1 / (1 - a1/z - ... - aP/z^P): n c(n) = n a(n) + the sum of k c(k) a(n-k), k = 1..n-1."""
    order = a_XP.shape[-1]
    backwards_XP = a_XP.flip(-1)
    scaled = a_XP[..., :1]
    for n in range(2, order + 1):
        known = (scaled * backwards_XP[..., order - n + 1 : order]).sum(-1, keepdim=True)
        scaled = torch.cat((scaled, n * a_XP[..., n - 1 : n] + known), -1)
    return scaled / torch.arange(1, order + 1, device=a_XP.device, dtype=a_XP.dtype)


class CepstraState(NamedTuple):
    """The sound that later windows reach back to, and the frames that later slopes do. Zeros: nothing was heard yet."""

    past_BKH: Tensor
    deltas: DeltaState


class Cepstra(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A front: pcm_BS [B, T*samples] -> [B, T, 39]: 13 static numbers, their slopes, and the slopes' slopes."""

    def __init__(self, static: nn.Module, window_samples: int, hop_samples: int) -> None:
        super().__init__()
        self.samples, self.width = hop_samples, 3 * STATIC
        self.framing = Framing(window_samples, hop_samples)
        self.static = static
        self.deltas = Deltas(STATIC)

    def start(self, rows: int) -> CepstraState:
        """The state before the first sample."""
        deltas = self.deltas.start(rows)
        return CepstraState(deltas.past_BKC.new_zeros(rows, self.framing.kept, self.samples), deltas)

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: CepstraState) -> tuple[Tensor, CepstraState]:
        """The features of each frame, and the state after each row's own `frames_B` frames."""
        static_BTC = self.static(self.framing.cut(state.past_BKH, pcm_BS))
        x_BTD, deltas = self.deltas(static_BTC, frames_B, state.deltas)
        return x_BTD, CepstraState(self.framing.keep(state.past_BKH, pcm_BS, frames_B), deltas)


class StaticCepstra(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A front: pcm_BS [B, T*samples] -> [B, T, C]: cepstra without slopes. Its state is the sound that windows reach back to."""

    def __init__(self, static: nn.Module, width: int, window_samples: int, hop_samples: int) -> None:
        super().__init__()
        self.samples, self.width = hop_samples, width
        self.framing = Framing(window_samples, hop_samples)
        self.static = static
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def start(self, rows: int) -> Tensor:
        """The state before the first sample."""
        return self.like.new_zeros(rows, self.framing.kept, self.samples)

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The features of each frame, and the state after each row's own `frames_B` frames."""
        return self.static(self.framing.cut(state, pcm_BS)), self.framing.keep(state, pcm_BS, frames_B)


def mfcc_static(window_samples: int, hop_samples: int, numbers: int, bands: int) -> StaticCepstra:
    """So many numbers a frame: c1 and on, and the log energy in c0's place, at the end."""
    static = MelCepstrum(window_samples, bands=bands, coefficients=numbers - 1)
    return StaticCepstra(static, numbers, window_samples, hop_samples)


def mfcc(window_samples: int, hop_samples: int, bands: int = BANDS) -> Cepstra:
    """MFCC-39 in this framing."""
    return Cepstra(MelCepstrum(window_samples, bands=bands), window_samples, hop_samples)


def lpcc(window_samples: int, hop_samples: int) -> Cepstra:
    """LPCC-39 in this framing."""
    return Cepstra(PredictionCepstrum(window_samples), window_samples, hop_samples)
