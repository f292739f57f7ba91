"""A plain spectrogram: log power on an even scale of frequency.

Letters: X any number of axes, W samples of a window, K bins, L bands.
"""

import torch
from torch import Tensor, nn

from clser.models.features.cepstra import BAND_FLOOR, StaticCepstra
from clser.models.features.spectrum import PowerSpectrum, periodic_hann

SPECTRUM_BANDS = 80


class EvenBands(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_XW -> the log of the mean power in each of `bands` equal parts of the spectrum, the first bin left out."""

    def __init__(self, window: int, bands: int) -> None:
        super().__init__()
        assert window // 2 % bands == 0
        self.power = PowerSpectrum(periodic_hann(window))
        each = window // 2 // bands
        number_K = self.power.bins
        band_K = torch.div(number_K - 1, each, rounding_mode="floor")
        part_KL = (band_K[:, None] == torch.arange(bands)) & (number_K[:, None] > 0)
        self.register_buffer("part_KL", part_KL.float() / each, persistent=False)

    def forward(self, x_XW: Tensor) -> Tensor:
        """[X, L]."""
        return torch.log(self.power(x_XW) @ self.part_KL + BAND_FLOOR)


def spectrogram(window_samples: int, hop_samples: int, bands: int = SPECTRUM_BANDS) -> StaticCepstra:
    """A front: log power in `bands` parts of 0 to 8 kHz."""
    return StaticCepstra(EvenBands(window_samples, bands), bands, window_samples, hop_samples)
