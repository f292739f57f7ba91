"""What is done to a batch of features while training: another microphone, another throat, parts that are not heard.

Letters: B rows, T frames, J hops, M mel bands, F features of a frame.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clser.models.data.vtlp import vtlp
from clser.models.features.constants import HOPS
from clser.models.features.logmel import BANDS, HIGHEST_HZ, LOWEST_HZ
from clser.models.features.prosody import FIELDS
from clser.models.plan import Masking

BANDED = "logmel"
"""The front whose first numbers are mel bands."""
KNOTS = 6
ENERGY = FIELDS.index("energy")
ENERGY_PER_NAT = 10.0 / math.log(10.0) / 20.0  # the prosody track counts energy in units of 20 dB

Array = np.ndarray[Any, Any]


def masked(
    given: Mapping[str, Tensor], frames_B: Array, masking: Masking, random: np.random.Generator, same_B: Array
) -> dict[str, Tensor]:
    """Padded features by front [B, T, F], changed in place: another gain, colour and throat, a few bands and frames
    blanked by their mean. The time that is blanked is the same in all fronts. `same_B`: rows whose level and colour
    must stay, since other clips of the speaker are known with theirs."""
    rows = len(frames_B)
    gain_B1 = random.normal(0.0, masking.gain, (rows, 1)) * ~same_B[:, None]
    colour_BM = random.normal(0.0, masking.colour, (rows, KNOTS)) @ _between_knots() * ~same_B[:, None]
    warp_B = 1.0 + random.uniform(-masking.warp, masking.warp, rows) * ~same_B
    first_NB, width_NB = _spans(masking.bands, np.full(rows, BANDS), np.full(rows, masking.band_width), random)
    start_NB, length_NB = _spans(masking.times, frames_B, np.maximum(2, frames_B * masking.time_share), random)
    if BANDED in given:
        x_BTF = given[BANDED]
        bands_BTJM = x_BTF[..., : HOPS * BANDS].unflatten(2, (HOPS, BANDS))
        if masking.warp > 0.0:
            for row_TJM, warp in zip(bands_BTJM.numpy(), warp_B, strict=True):
                row_TJM[:] = vtlp(row_TJM, float(warp), LOWEST_HZ, HIGHEST_HZ)
        bands_BTJM += torch.from_numpy((colour_BM + gain_B1).astype(np.float32))[:, None, None]
        for first_B, width_B in zip(first_NB, width_NB, strict=True):
            _blank_bands(bands_BTJM, frames_B, first_B, width_B)
    if "prosody" in given:
        given["prosody"][..., ENERGY] += torch.from_numpy((gain_B1 * ENERGY_PER_NAT).astype(np.float32))
    longest = max(1, int(frames_B.max(initial=1)))
    for x_BTF in given.values():
        _blank_times(x_BTF, frames_B, x_BTF.shape[1] // longest, start_NB, length_NB)
    return dict(given)


def _between_knots() -> Array:
    """[KNOTS, M]: values at evenly spaced bands to all bands, by straight lines."""
    at_M = np.linspace(0, KNOTS - 1, BANDS)
    return np.stack([np.interp(at_M, np.arange(KNOTS), row) for row in np.eye(KNOTS)])


def _spans(count: int, whole_B: Array, below_B: Array, random: np.random.Generator) -> tuple[Array, Array]:
    """`count` spans in each row: where they begin [count, B] and how long they are (less than `below_B`)."""
    length = (random.random((count, len(whole_B))) * below_B).astype(np.int64)
    begin = (random.random((count, len(whole_B))) * np.maximum(1, whole_B - length)).astype(np.int64)
    return begin, length


def _blank_bands(bands_BTJM: Tensor, frames_B: Array, first_B: Array, width_B: Array) -> None:
    at_M = np.arange(BANDS)
    inside_BM = (at_M >= first_B[:, None]) & (at_M < (first_B + width_B)[:, None])
    real_BT = np.arange(bands_BTJM.shape[1]) < frames_B[:, None]
    weight_BM = torch.from_numpy(inside_BM / np.maximum(1, width_B * frames_B * HOPS)[:, None]).float()
    over_time_BM = (bands_BTJM.sum(2) * torch.from_numpy(real_BT).float()[..., None]).sum(1)
    mean_B = (over_time_BM * weight_BM).sum(1)
    here = torch.from_numpy(inside_BM)[:, None, None]
    bands_BTJM.copy_(torch.where(here, mean_B[:, None, None, None], bands_BTJM))


def _blank_times(x_BTF: Tensor, frames_B: Array, ratio: int, start_NB: Array, length_NB: Array) -> None:
    at_T = np.arange(x_BTF.shape[1]) // max(1, ratio)
    inside_BT = np.zeros((len(frames_B), len(at_T)), bool)
    for start_B, length_B in zip(start_NB, length_NB, strict=True):
        inside_BT |= (at_T >= start_B[:, None]) & (at_T < (start_B + length_B)[:, None])
    if not inside_BT.any():
        return
    real_BT1 = torch.from_numpy(at_T < frames_B[:, None]).float()[..., None]
    mean_BF = (x_BTF * real_BT1).sum(1) / real_BT1.sum(1).clamp_min(1.0)
    x_BTF.copy_(torch.where(torch.from_numpy(inside_BT)[..., None], mean_BF[:, None], x_BTF))
