"""Whisper's encoder: its log-mel, its window of 30 s, and the same without the window.

Letters: B rows, P pieces (rows cut into windows), S samples, K frequencies, M mel bands, J hops (10 ms),
T frames (20 ms), D width.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clser.models.encoders.layers_of import Choice, Reader
from clser.models.features.spectrum import between
from clser.models.tensors import Sequences, real

RATE_HZ = 16_000
WINDOW_SAMPLES = 400
SMALLEST_POWER = 1e-10
RANGE = 8.0  # decades below the loudest band that are kept


def mel_matrix(bands: int) -> Tensor:
    """[K, M]: triangles on Slaney's mel scale (straight to 1 kHz, logarithmic above), each of area one, 0 to 8 kHz."""
    top = 15.0 + math.log(RATE_HZ / 2 / 1_000.0) * 27.0 / math.log(6.4)
    mel = torch.linspace(0.0, top, bands + 2, dtype=torch.float64)
    edge_hz = torch.where(mel < 15.0, mel * 200.0 / 3.0, 1_000.0 * torch.exp((mel - 15.0) * math.log(6.4) / 27.0))
    bin_hz = torch.linspace(0.0, RATE_HZ / 2, WINDOW_SAMPLES // 2 + 1, dtype=torch.float64)
    height = 2.0 / (edge_hz[2:] - edge_hz[:-2])
    return (between(edge_hz, bin_hz) * height).float()


def waves() -> Tensor:
    """[2K, 1, 400]: a Hann window's cosines, then its sines, as a convolution that any runtime has."""
    n = torch.arange(WINDOW_SAMPLES, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * n / WINDOW_SAMPLES)
    angle = 2 * math.pi / WINDOW_SAMPLES * torch.arange(WINDOW_SAMPLES // 2 + 1, dtype=torch.float64)[:, None] * n
    return (torch.cat((torch.cos(angle), torch.sin(angle))) * hann).float()[:, None]


class WhisperSpeech(Reader):
    """pcm_BS and samples_B -> `Sequences`. Rows longer than the window are heard window by window and joined.

    `padded`: each piece is filled up with silence to 30 s, as Whisper was trained, and the frames of the silence are cut
    off the result; they do take part in attention. Without it a piece is heard at its own length: the positions are cut and
    what lies beyond its end is masked. That costs what the sound costs, and answers somewhat otherwise.
    """

    def __init__(self, encoder: Any, choice: Choice, hop_samples: int = 160, padded: bool = True) -> None:
        depth = len(encoder.layers)
        super().__init__(encoder, encoder.layers, encoder.config.d_model, choice)
        self.whole = len(encoder.layers) == depth
        self.hop, self.samples = hop_samples, 2 * hop_samples
        self.window_samples = encoder.config.max_source_positions * self.samples
        self.padded = padded
        self.register_buffer("waves", waves(), persistent=False)
        self.register_buffer("mel_KM", mel_matrix(encoder.config.num_mel_bins), persistent=False)

    def forward(self, pcm_BS: Tensor, samples_B: Tensor) -> Sequences:
        pcm_PS, samples_P = self._pieces(pcm_BS, samples_B)
        frames_P = self.frames(samples_P)
        mel_PMJ = self.log_mel(pcm_PS * real(samples_P, pcm_PS.shape[1]), 2 * frames_P)
        last_PTD, hidden = self._encoded(mel_PMJ, frames_P)
        # Every piece of a row but its last is full, so the frames of a row lie side by side.
        rows = pcm_BS.shape[0]
        last_BTD, *hidden = (x_PTD.reshape(rows, -1, x_PTD.shape[2]) for x_PTD in (last_PTD, *hidden))
        return self.fused(last_BTD, hidden, frames_P.reshape(rows, -1).sum(1))

    def frames(self, samples_P: Tensor) -> Tensor:
        """How many frames that many samples of one piece give."""
        hops_P = torch.div(samples_P, self.hop, rounding_mode="floor")
        return torch.div(hops_P + 1, 2, rounding_mode="floor")

    def log_mel(self, pcm_PS: Tensor, hops_P: Tensor) -> Tensor:
        """[P, M, J], from -1 to about 1.5. What lies beyond a piece's own hops does not count towards its loudest."""
        half = WINDOW_SAMPLES // 2
        if self.padded:
            sound_P1S = functional.pad(pcm_PS[:, None], (half, half), mode="reflect")
        else:  # what follows the sound is silence, however long the batch is
            sound_P1S = functional.pad(functional.pad(pcm_PS[:, None], (half, 0), mode="reflect"), (0, half))
        wave_PKJ = functional.conv1d(sound_P1S, self.waves, stride=self.hop)[..., :-1]
        bins = WINDOW_SAMPLES // 2 + 1
        power_PKJ = wave_PKJ[:, :bins].square() + wave_PKJ[:, bins:].square()
        log_PMJ = torch.log10((self.mel_KM.T @ power_PKJ).clamp_min(SMALLEST_POWER))
        counted_PMJ = (
            log_PMJ if self.padded else torch.where(_hops(hops_P, log_PMJ), log_PMJ, math.log10(SMALLEST_POWER))
        )
        loudest_P11 = counted_PMJ.amax((1, 2), keepdim=True)
        return (torch.maximum(log_PMJ, loudest_P11 - RANGE) + 4.0) / 4.0

    def _pieces(self, pcm_BS: Tensor, samples_B: Tensor) -> tuple[Tensor, Tensor]:
        rows, width = pcm_BS.shape
        count = max(1, -(-width // self.window_samples))
        size = self.window_samples
        if not self.padded and count == 1:
            size = max(1, -(-width // self.samples)) * self.samples
        pcm_BS = functional.pad(pcm_BS, (0, count * size - width))
        begin_N = torch.arange(count, device=samples_B.device) * size
        samples_BN = (samples_B[:, None] - begin_N).clamp(0, size)
        return pcm_BS.reshape(rows * count, size), samples_BN.flatten()

    def _encoded(self, mel_PMJ: Tensor, frames_P: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The library's encoder, which by itself takes nothing but whole windows."""
        encoder, mask = self.encoder, None
        mel_PMJ = mel_PMJ.to(encoder.dtype)
        if self.padded:
            x_PDJ = functional.gelu(encoder.conv1(mel_PMJ))
        else:  # zeros beyond the end, which is what a convolution finds beyond the end of a row alone
            real_P1J = _hops(2 * frames_P, mel_PMJ)
            x_PDJ = functional.gelu(encoder.conv1(mel_PMJ * real_P1J)) * real_P1J
            seen_PT = real(frames_P.clamp_min(1), mel_PMJ.shape[2] // 2)
            mask = torch.where(seen_PT, 0.0, torch.finfo(encoder.dtype).min).to(encoder.dtype)[:, None, None]
        x_PTD = functional.gelu(encoder.conv2(x_PDJ)).transpose(1, 2)
        x_PTD = x_PTD + encoder.embed_positions.weight[: x_PTD.shape[1]]
        hidden = [x_PTD]
        for layer in encoder.layers:
            hidden.append(layer(hidden[-1], mask))
        last_PTD = encoder.layer_norm(hidden[-1])
        if self.whole:
            hidden[-1] = last_PTD  # the library, too, counts the topmost hidden state after the norm
        return last_PTD, hidden


def _hops(hops_P: Tensor, mel_PMJ: Tensor) -> Tensor:
    return real(hops_P, mel_PMJ.shape[2])[:, None]
