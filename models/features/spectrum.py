"""Power spectra by matrix products, windows and mel triangles: what every spectral feature here is made of.

Letters: W samples of a window, K = W/2 + 1 bins, M mel bands, X any number of axes.

ONNX runtimes have a Fourier transform on paper and are slow at it, or lack it. Products a quarter of the naive size are fast
everywhere, and the same module trains in torch.
"""

import math

import torch
from torch import Tensor, nn


def hann(samples: int) -> Tensor:
    """Symmetric, with neither end quite at zero: no sample is wasted."""
    n = torch.arange(samples, dtype=torch.float64)
    return (0.5 - 0.5 * torch.cos(2 * math.pi * (n + 0.5) / samples)).float()


def periodic_hann(samples: int) -> Tensor:
    """The Hann window that most audio libraries take for granted: it begins at zero and does not end there."""
    n = torch.arange(samples, dtype=torch.float64)
    return (0.5 - 0.5 * torch.cos(2 * math.pi * n / samples)).float()


def hamming(samples: int) -> Tensor:
    n = torch.arange(samples, dtype=torch.float64)
    return (0.54 - 0.46 * torch.cos(2 * math.pi * n / (samples - 1))).float()


def mel(hz: float) -> float:
    """The scale of O'Shaughnessy 1987, as in HTK."""
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def triangles(
    bands: int, window: int, rate_hz: int, lowest_hz: float, highest_hz: float, *, unit_area: bool = False
) -> Tensor:
    """[W/2 + 1, bands]: triangles evenly spaced on the mel scale, of height one or each summing to one."""
    edge_mel = torch.linspace(mel(lowest_hz), mel(highest_hz), bands + 2, dtype=torch.float64)
    edge_hz = 700.0 * (10.0 ** (edge_mel / 2595.0) - 1.0)
    bin_hz = torch.arange(window // 2 + 1, dtype=torch.float64) * rate_hz / window
    weight = between(edge_hz, bin_hz)
    return (weight / weight.sum(0) if unit_area else weight).float()


def between(edge_hz: Tensor, bin_hz: Tensor) -> Tensor:
    """[bins, edges - 2]: of each bin in each triangle, which rises from one edge to the next and falls to the one after."""
    up = (bin_hz[:, None] - edge_hz[:-2]) / (edge_hz[1:-1] - edge_hz[:-2])
    down = (edge_hz[2:] - bin_hz[:, None]) / (edge_hz[2:] - edge_hz[1:-1])
    return torch.minimum(up, down).clamp_min(0.0)


def waves(bins: Tensor, samples: int, size: int) -> tuple[Tensor, Tensor]:
    """cos and sin [samples, len(bins)] of a transform of `size` points, with time counted in half samples."""
    angle = 2 * math.pi / size * (torch.arange(samples, dtype=torch.float64)[:, None] + 0.5) * bins.double()
    return torch.cos(angle).float(), torch.sin(angle).float()


def fold(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """The first `half` of the last axis plus, and minus, the second half read backwards."""
    first, second = x[..., :half], x[..., half:].flip(-1)
    return first + second, first - second


class PowerSpectrum(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_XW -> its windowed power in every bin [X, K], the even bins first and then the odd ones: see `bins`.

    Four products a quarter of the usual size: cosines are symmetric about the window's middle, sines the opposite, and
    about its quarter each is one or the other by whether its number is even.
    """

    def __init__(self, window_W: Tensor) -> None:
        super().__init__()
        samples = window_W.numel()
        assert samples % 4 == 0
        self.half, self.quarter = samples // 2, samples // 4
        numbers = torch.arange(samples // 2 + 1)
        even, odd = numbers[0::2], numbers[1::2]
        self.bins = torch.cat((even, odd))
        """The number of each bin in the order they come out: rows of a matrix that takes them are to be in this order."""
        self.register_buffer("window_W", window_W, persistent=False)
        for name, which in (("even", even), ("odd", odd)):
            cos, sin = waves(which, self.quarter, samples)
            self.register_buffer(f"{name}_cos", cos, persistent=False)
            self.register_buffer(f"{name}_sin", sin, persistent=False)

    def forward(self, x_XW: Tensor) -> Tensor:
        """The bins' order is that of `bins`."""
        sum_, difference = fold(x_XW * self.window_W, self.half)
        even_cos, odd_cos = fold(sum_, self.quarter)
        odd_sin, even_sin = fold(difference, self.quarter)
        even = (even_cos @ self.even_cos).square() + (even_sin @ self.even_sin).square()
        odd = (odd_cos @ self.odd_cos).square() + (odd_sin @ self.odd_sin).square()
        return torch.cat((even, odd), -1)
