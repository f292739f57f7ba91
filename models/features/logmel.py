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

TAIL_SAMPLES = 2 * HOP_SAMPLES

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
    edge_mel = torch.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), bands + 2, dtype=torch.float64)
    edge_hz = 700.0 * (10.0 ** (edge_mel / 2595.0) - 1.0)
    bin_hz = torch.arange(WINDOW_SAMPLES // 2 + 1, dtype=torch.float64) * SAMPLE_RATE_HZ / WINDOW_SAMPLES
    up = (bin_hz[:, None] - edge_hz[:-2]) / (edge_hz[1:-1] - edge_hz[:-2])
    down = (edge_hz[2:] - bin_hz[:, None]) / (edge_hz[2:] - edge_hz[1:-1])
    weight = torch.minimum(up, down).clamp_min(0.0)
    return (weight / weight.sum(0)).float()


def _mel(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def _hann(samples: int) -> Tensor:
    n = torch.arange(samples, dtype=torch.float64)
    return (0.5 - 0.5 * torch.cos(2 * math.pi * (n + 0.5) / samples)).float()


def _low_pass() -> Tensor:
    """A windowed sinc, 1.6 kHz: what the decimation would fold back is gone."""
    n = torch.arange(TAPS, dtype=torch.float64) - (TAPS - 1) / 2
    cutoff = 2 * 1_600.0 / SAMPLE_RATE_HZ
    taps = torch.sinc(cutoff * n) * _hann(TAPS).double()
    return (taps / taps.sum()).float()


def _decimation() -> Tensor:
    """[2 * PIECE, PIECE / 4]: two pieces of sound to the later one's samples at 4 kHz."""
    matrix = torch.zeros(2 * PIECE_SAMPLES, PIECE_SAMPLES // DECIMATION)
    for n in range(matrix.shape[1]):
        end = PIECE_SAMPLES + (n + 1) * DECIMATION
        matrix[end - TAPS : end, n] = _low_pass()
    return matrix


def _waves(bins: Tensor, samples: int, size: int) -> tuple[Tensor, Tensor]:
    """cos and sin [samples, len(bins)] of a transform of `size` points, with time counted in half samples."""
    angle = 2 * math.pi / size * (torch.arange(samples, dtype=torch.float64)[:, None] + 0.5) * bins.double()
    return torch.cos(angle).float(), torch.sin(angle).float()


class LogMel(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """pcm_BS [B, T*640] and a state -> features [B, T, F] and the state after every one of the T frames.

    The first 4M features of a frame are its hops' log-mel bands, oldest hop first; the last L are the correlogram.
    """

    def __init__(self) -> None:
        super().__init__()
        quarter = WINDOW_SAMPLES // 4
        bins = torch.arange(WINDOW_SAMPLES // 2 + 1)
        even, odd = bins[0::2], bins[1::2]
        self.even = even.numel()
        # A power spectrum by products a quarter of the usual size: cosines are symmetric about the window's middle,
        # sines the opposite, and about its quarter each is one or the other by whether its number is even.
        self.register_buffer("window_S", _hann(WINDOW_SAMPLES), persistent=False)
        for name, which in (("even", even), ("odd", odd)):
            cos, sin = _waves(which, quarter, WINDOW_SAMPLES)
            self.register_buffer(f"{name}_cos", cos, persistent=False)
            self.register_buffer(f"{name}_sin", sin, persistent=False)
        self.register_buffer("mel_KM", mel_matrix()[torch.cat((even, odd))], persistent=False)
        self._register_pitch()

    def _register_pitch(self) -> None:
        self.register_buffer("decimate", _decimation(), persistent=False)
        self.register_buffer("pitch_window_S", _hann(PITCH_WINDOW), persistent=False)
        bins = torch.arange(1, PITCH_BINS + 1)
        cos, sin = (wave.flip(0) for wave in _waves(bins, PITCH_WINDOW // 2, 2 * PITCH_WINDOW))
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
        return LogMelState(self.window_S.new_zeros(rows, TAIL_SAMPLES), self.window_S.new_zeros(rows, LOW_SAMPLES))

    def forward(self, pcm_BS: Tensor, state: LogMelState) -> tuple[Tensor, LogMelState]:
        """The state that comes back is [B, T+1, ...]: before the first frame, then after each one."""
        rows = pcm_BS.shape[0]
        sound_BS = torch.cat((state.tail_BS, pcm_BS), 1)
        mel_BTF = self._log_mel(sound_BS).reshape(rows, -1, HOPS * BANDS)
        pieces_BJS = sound_BS[:, TAIL_SAMPLES - PIECE_SAMPLES :].reshape(rows, -1, PIECE_SAMPLES)
        low_BS = (torch.cat((pieces_BJS[:, :-1], pieces_BJS[:, 1:]), 2) @ self.decimate).flatten(1)
        blocks_BTS = torch.cat((state.low_BS, low_BS), 1).reshape(rows, -1, LOW_SAMPLES)
        lags_BTL = self._correlogram(blocks_BTS)
        tails_BTS = torch.cat(
            (state.tail_BS[:, None], pcm_BS.reshape(rows, -1, FRAME_SAMPLES)[:, :, -TAIL_SAMPLES:]), 1
        )
        return torch.cat((mel_BTF, lags_BTL), 2), LogMelState(tails_BTS, blocks_BTS)

    def _log_mel(self, sound_BS: Tensor) -> Tensor:
        hops_BJS = sound_BS.reshape(sound_BS.shape[0], -1, HOP_SAMPLES)
        half = WINDOW_SAMPLES - 2 * HOP_SAMPLES
        frames_BJS = torch.cat((hops_BJS[:, :-2, -half:], hops_BJS[:, 1:-1], hops_BJS[:, 2:]), 2) * self.window_S
        sum_, difference = _fold(frames_BJS, WINDOW_SAMPLES // 2)
        even_cos, odd_cos = _fold(sum_, WINDOW_SAMPLES // 4)
        odd_sin, even_sin = _fold(difference, WINDOW_SAMPLES // 4)
        even = (even_cos @ self.even_cos).square() + (even_sin @ self.even_sin).square()
        odd = (odd_cos @ self.odd_cos).square() + (odd_sin @ self.odd_sin).square()
        return torch.log(torch.cat((even, odd), 2) @ self.mel_KM + FLOOR)

    def _correlogram(self, blocks_BTS: Tensor) -> Tensor:
        """Autocorrelation of the power's cube root (a loud formant must not drown the pitch), over its own energy."""
        overlap = PITCH_WINDOW - LOW_SAMPLES
        windows_BTS = torch.cat((blocks_BTS[:, :-1, -overlap:], blocks_BTS[:, 1:]), 2) * self.pitch_window_S
        sum_, difference = _fold(windows_BTS, PITCH_WINDOW // 2)
        power = (sum_ @ self.pitch_cos).square() + (difference @ self.pitch_sin).square()
        root = torch.exp(torch.log(power + 1e-7) * (1.0 / 3.0))
        return (root @ self.lag_KL) / root.sum(2, keepdim=True)


def _fold(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """The first `half` of the last axis plus, and minus, the second half read backwards."""
    first, second = x[..., :half], x[..., half:].flip(-1)
    return first + second, first - second
