"""Log-mel bands and a correlogram of the pitch, streamed: what the small voice networks hear.

Letters: B rows, S samples, T frames of 40 ms, J = 4T hops of 10 ms, K bins, M mel bands, L lags,
F = 4M + L features of a frame.

Sound in, state in; features out, state out. A whole recording is one long chunk: any split gives the same numbers.
Every step is a matrix product, so that the same module trains in torch and runs in any ONNX runtime.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clser.models.features.constants import FRAME_SAMPLES, HOP_SAMPLES, HOPS, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from clser.models.features.framing import Framing
from clser.models.features.spectrum import PowerSpectrum, fold, hann, triangles, waves
from clser.models.tensors import after

FRAMING = Framing(WINDOW_SAMPLES, HOP_SAMPLES)
TAIL_SAMPLES = FRAMING.kept * HOP_SAMPLES

BANDS = 48
LOWEST_HZ, HIGHEST_HZ = 60.0, 7_800.0
FLOOR = 1e-5  # about 60 dB under loud speech: what lies below tells of the recorder, not of the voice

DECIMATION = 4
LOW_RATE_HZ = SAMPLE_RATE_HZ // DECIMATION
LOW_SAMPLES = FRAME_SAMPLES // DECIMATION
TAPS = 32
PIECE_SAMPLES = 64  # what the decimation takes at a time
PITCH_WINDOW = 256  # 64 ms: three periods of a deep voice
PITCH_BINS = 128  # 7.8 Hz apart: up to 1 kHz
LAGS = 48
LOWEST_PITCH_HZ, HIGHEST_PITCH_HZ = 60.0, 500.0

FEATURES = HOPS * BANDS + LAGS


class LogMelState(NamedTuple):
    """The sound that later windows still reach back to. Zeros: nothing was heard yet."""

    tail_BS: Tensor
    """The last 20 ms at 16 kHz."""
    low_BS: Tensor
    """The last 40 ms at 4 kHz."""


def mel_matrix(bands: int = BANDS) -> Tensor:
    """[WINDOW/2 + 1, bands]: triangles evenly spaced on the mel scale, each summing to one."""
    return triangles(bands, WINDOW_SAMPLES, SAMPLE_RATE_HZ, LOWEST_HZ, HIGHEST_HZ, unit_area=True)


def _low_pass() -> Tensor:
    """A windowed sinc, 1.6 kHz: what the decimation would fold back is gone."""
    n = torch.arange(TAPS, dtype=torch.float64) - (TAPS - 1) / 2
    cutoff = 2 * 1_600.0 / SAMPLE_RATE_HZ
    taps = torch.sinc(cutoff * n) * hann(TAPS).double()
    return (taps / taps.sum()).float()


def _decimation() -> Tensor:
    """[2 * PIECE, PIECE / 4]: two pieces of sound to the later one's samples at 4 kHz."""
    matrix = torch.zeros(2 * PIECE_SAMPLES, PIECE_SAMPLES // DECIMATION)
    for n in range(matrix.shape[1]):
        end = PIECE_SAMPLES + (n + 1) * DECIMATION
        matrix[end - TAPS : end, n] = _low_pass()
    return matrix


class LogMel(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A front: pcm_BS [B, T*640] -> features [B, T, F].

    The first 4M features of a frame are its hops' log-mel bands, oldest hop first; the last L are the correlogram.
    """

    def __init__(self) -> None:
        super().__init__()
        self.samples, self.width = FRAME_SAMPLES, FEATURES
        self.power = PowerSpectrum(hann(WINDOW_SAMPLES))
        self.register_buffer("mel_KM", mel_matrix()[self.power.bins], persistent=False)
        self._register_pitch()

    def _register_pitch(self) -> None:
        self.register_buffer("decimate", _decimation(), persistent=False)
        self.register_buffer("pitch_window_S", hann(PITCH_WINDOW), persistent=False)
        bins = torch.arange(1, PITCH_BINS + 1)
        cos, sin = (wave.flip(0) for wave in waves(bins, PITCH_WINDOW // 2, 2 * PITCH_WINDOW))
        # The window lies in the first half of a transform of twice its size (its autocorrelation must not wrap round);
        # its middle is that transform's origin here, which turns phases only.
        self.register_buffer("pitch_cos", cos, persistent=False)
        self.register_buffer("pitch_sin", sin, persistent=False)
        pitch_hz = torch.logspace(math.log10(LOWEST_PITCH_HZ), math.log10(HIGHEST_PITCH_HZ), LAGS, dtype=torch.float64)
        lag = LOW_RATE_HZ / pitch_hz
        to_lags = torch.cos(2 * math.pi / (2 * PITCH_WINDOW) * bins.double()[:, None] * lag)
        self.register_buffer("lag_KL", to_lags.float(), persistent=False)

    def start(self, rows: int) -> LogMelState:
        """The state before the first sample."""
        return LogMelState(self.mel_KM.new_zeros(rows, TAIL_SAMPLES), self.mel_KM.new_zeros(rows, LOW_SAMPLES))

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: LogMelState) -> tuple[Tensor, LogMelState]:
        """The features of each frame, and the state after each row's own `frames_B` frames."""
        rows = pcm_BS.shape[0]
        past_BKS = state.tail_BS.reshape(rows, FRAMING.kept, HOP_SAMPLES)
        power_BJK = self.power(FRAMING.cut(past_BKS, pcm_BS))
        mel_BTF = torch.log(power_BJK @ self.mel_KM + FLOOR).reshape(rows, -1, HOPS * BANDS)
        low_BTS = self._decimated(state.tail_BS, pcm_BS).reshape(rows, -1, LOW_SAMPLES)
        lags_BTL = self._correlogram(torch.cat((state.low_BS[:, None], low_BTS), 1))
        tails_BTS = pcm_BS.reshape(rows, -1, FRAME_SAMPLES)[:, :, -TAIL_SAMPLES:]
        tail_BS = after(state.tail_BS[:, None], tails_BTS, frames_B)[:, 0]
        low_BS = after(state.low_BS[:, None], low_BTS, frames_B)[:, 0]
        return torch.cat((mel_BTF, lags_BTL), 2), LogMelState(tail_BS, low_BS)

    def _decimated(self, tail_BS: Tensor, pcm_BS: Tensor) -> Tensor:
        """[B, S/4]: the same sound at 4 kHz."""
        sound_BS = torch.cat((tail_BS[:, -PIECE_SAMPLES:], pcm_BS), 1)
        pieces_BJS = sound_BS.reshape(pcm_BS.shape[0], -1, PIECE_SAMPLES)
        low_BJS = torch.cat((pieces_BJS[:, :-1], pieces_BJS[:, 1:]), 2) @ self.decimate
        return low_BJS.flatten(1)

    def _correlogram(self, blocks_BTS: Tensor) -> Tensor:
        """Autocorrelation of the power's cube root (a loud formant must not drown the pitch), over its own energy."""
        overlap = PITCH_WINDOW - LOW_SAMPLES
        windows_BTS = torch.cat((blocks_BTS[:, :-1, -overlap:], blocks_BTS[:, 1:]), 2) * self.pitch_window_S
        sum_, difference = fold(windows_BTS, PITCH_WINDOW // 2)
        power = (sum_ @ self.pitch_cos).square() + (difference @ self.pitch_sin).square()
        root = torch.exp(torch.log(power + 1e-7) * (1.0 / 3.0))
        return (root @ self.lag_KL) / root.sum(2, keepdim=True)
