"""Other throats, done to log-mel features: VTLP (Jaitly and Hinton 2013).

Letters: T frames or hops, M mel bands.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

WARP = (0.9, 1.1)
BREAK_HZ = 4_800.0
"""Up to here (or less, where a warp by more than 1 would run over the end) frequencies are stretched evenly."""


def vtlp(bands_TM: Array, warp: float, lowest_hz: float, highest_hz: float) -> Array:
    """The bands as of a vocal tract shorter by `warp`: what lay at f comes to lie at f * warp. They themselves are left alone.

    The bands' middles are evenly spaced on the mel scale between the edges `lowest_hz` and `highest_hz`.
    """
    if warp == 1.0:
        return np.array(bands_TM)
    bands = bands_TM.shape[-1]
    edges_mel = np.linspace(_mel(lowest_hz), _mel(highest_hz), bands + 2)
    middle_hz = 700.0 * (10.0 ** (edges_mel[1:-1] / 2595.0) - 1.0)
    from_hz = np.interp(middle_hz, *_warped(warp, highest_hz))
    place = np.clip(np.interp(_mel(from_hz), edges_mel, np.arange(-1.0, bands + 1.0)), 0.0, bands - 1.0)
    below = np.minimum(place.astype(int), bands - 2)
    above_share = (place - below).astype(bands_TM.dtype)
    warped: Array = bands_TM[..., below] * (1 - above_share) + bands_TM[..., below + 1] * above_share
    return warped


def _warped(warp: float, highest_hz: float) -> tuple[list[float], list[float]]:
    """Knots of the warp: where frequencies come to lie, and where they came from."""
    # f' = f * a for f <= F * min(a, 1) / a, then a straight line to the highest (Jaitly & Hinton, eq. 1)
    knee_hz = BREAK_HZ * min(warp, 1.0) / warp
    return [0.0, knee_hz * warp, highest_hz], [0.0, knee_hz, highest_hz]


def _mel(hz: Any) -> Any:
    return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)
