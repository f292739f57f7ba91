"""How an utterance goes, so far: means, spreads, slopes and how fast each column moves, as sums that grow with the sound.

Letters: B rows, S hops of 10 ms, T frames of a few hops, K asked frames, M mel bands, P prosody numbers, C columns, V of
them told of voiced hops again, Z sums, F numbers that come out.

What openSMILE's large sets tell with thousands of numbers, these few hundred tell nearly as well (docs/training.md), and
they need nothing but sums: no sorting, no second look.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clser.models.features.constants import HOP_SAMPLES, SAMPLE_RATE_HZ
from clser.models.features.logmel import BANDS
from clser.models.features.prosody import FIELDS
from clser.models.layers.averages import SMALLEST_DEVIATION
from clser.models.layers.colour import SPEECH_LEVEL
from clser.models.tensors import after, picked

CEPSTRA = 14
SHAPES = 3
COLUMNS = BANDS + CEPSTRA + len(FIELDS) + SHAPES
VOICED = COLUMNS - BANDS
"""Those columns that are told again of voiced hops alone: all but the bands."""
LAGS = (1, 4, 16)
"""Hops between which movement is measured: 10, 40 and 160 ms."""
REACH = max(LAGS)
HOP_S = HOP_SAMPLES / SAMPLE_RATE_HZ
VOICING = FIELDS.index("voicing")
VOICED_FROM = 0.5
FAINT = 1e-3  # what a hop weighs in which nothing is heard
SOME = 1e-2  # beside sums that may be nothing
SMALLEST_VARIANCE = 1e-2
SMALLEST_SPREAD = 0.3  # of what varies less no shape can be told: its third and fourth powers are rounding
FARTHEST = 4.0  # deviations, for the same reason

WIDTH = COLUMNS * (5 + len(LAGS)) + 2 * VOICED + 3
SCALARS = 6 + len(LAGS)
SUMS = SCALARS + COLUMNS * (5 + len(LAGS)) + 2 * VOICED


class MannerState(NamedTuple):
    """Zeros: no hop yet."""

    hops_B1: Tensor
    sums_BZ: Tensor
    recent_BSC: Tensor
    """The last hops, which movement is measured from."""
    weight_BS: Tensor


class Manner(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Log-mel bands and prosody of each hop -> WIDTH numbers after each frame of `hops` hops.

    A hop weighs as much as it is speech. Numbers a column: mean, logarithm of the deviation, slope a second, and the
    mean distance between hops 10, 40 and 160 ms apart, over the deviation, skew and the logarithm of the kurtosis; then
    mean and deviation in voiced hops; then how long it is, how much of it is speech and how much voiced.
    """

    def __init__(self, hops: int) -> None:
        super().__init__()
        self.hops = hops
        at_M = torch.arange(BANDS, dtype=torch.float64)
        angles_CM = math.pi * torch.arange(CEPSTRA, dtype=torch.float64)[:, None] * (at_M + 0.5) / BANDS
        self.register_buffer("cosine_MC", (torch.cos(angles_CM) / math.sqrt(BANDS / 2)).T.float(), persistent=False)
        self.register_buffer("place_M2", torch.stack((at_M / BANDS, (at_M / BANDS) ** 2), 1).float(), persistent=False)
        self.prosody = slice(BANDS + CEPSTRA, BANDS + CEPSTRA + len(FIELDS))
        """Where the prosody stands among the columns."""
        self.register_buffer("mean_C", torch.zeros(COLUMNS))
        self.register_buffer("deviation_C", torch.ones(COLUMNS))

    def start(self, rows: int) -> MannerState:
        """Before the first hop."""
        zeros = self.mean_C.new_zeros
        return MannerState(zeros(rows, 1), zeros(rows, SUMS), zeros(rows, REACH, COLUMNS), zeros(rows, REACH))

    def fit(self, columns_NC: Tensor) -> None:
        """Takes what is usual from hops of speech; without any, nothing changes."""
        if len(columns_NC) > 1:
            self.mean_C.copy_(columns_NC.mean(0))
            self.deviation_C.copy_(columns_NC.std(0).clamp_min(SMALLEST_DEVIATION))

    def columns(self, bands_BSM: Tensor, prosody_BSP: Tensor) -> Tensor:
        """[B, S, C]: bands, cepstra, prosody, and the spectrum's centre, width and entropy."""
        log_BSM = bands_BSM.log_softmax(2)
        share_BSM = log_BSM.exp()
        centre_BS1, square_BS1 = (share_BSM @ self.place_M2).split(1, 2)
        width_BS1 = torch.sqrt((square_BS1 - centre_BS1.square()).clamp_min(0.0) + 1e-6)
        entropy_BS1 = -(share_BSM * log_BSM).sum(2, keepdim=True)
        return torch.cat((bands_BSM, bands_BSM @ self.cosine_MC, prosody_BSP, centre_BS1, width_BS1, entropy_BS1), 2)

    def forward(
        self, bands_BSM: Tensor, prosody_BSP: Tensor, real_BS: Tensor, state: MannerState, at_BK: Tensor | None = None
    ) -> tuple[Tensor, MannerState]:
        """[B, K, WIDTH] after the frames asked for (all T for None), and the state after each row's own hops.

        S is a multiple of `hops`, and so is every row's number of real hops.
        """
        x_BSC = ((self.columns(bands_BSM, prosody_BSP) - self.mean_C) / self.deviation_C).clamp(-FARTHEST, FARTHEST)
        heard_BS = real_BS.to(x_BSC.dtype)
        weight_BS = (torch.sigmoid(bands_BSM.mean(2) - SPEECH_LEVEL) + FAINT) * heard_BS
        added_BTZ = self._added(x_BSC, weight_BS, heard_BS, prosody_BSP[..., VOICING], state)
        sums_BTZ = state.sums_BZ[:, None] + added_BTZ.cumsum(1)
        hops_B = heard_BS.sum(1)
        left = MannerState(
            state.hops_B1 + hops_B[:, None],
            sums_BTZ[:, -1],  # padding adds nothing
            after(state.recent_BSC, x_BSC, hops_B.long()),
            after(state.weight_BS[..., None], weight_BS[..., None], hops_B.long())[..., 0],
        )
        return _read(sums_BTZ if at_BK is None else picked(sums_BTZ, at_BK)), left

    def _added(
        self, x_BSC: Tensor, weight_BS: Tensor, heard_BS: Tensor, voicing_BS: Tensor, state: MannerState
    ) -> Tensor:
        """[B, T, Z]: what each frame adds to the sums."""
        weight_BS1 = weight_BS[..., None]
        at_BS1 = (state.hops_B1 + torch.arange(x_BSC.shape[1], device=x_BSC.device))[..., None] * HOP_S
        voiced_BS1 = weight_BS1 * voicing_BS[..., None]
        weighted_BSC, told_BSV = weight_BS1 * x_BSC, x_BSC[..., BANDS:]
        past_BSC = torch.cat((state.recent_BSC, x_BSC), 1)
        past_BS1 = torch.cat((state.weight_BS, weight_BS), 1)[..., None]
        both, moved = [], []
        for lag in LAGS:
            # ends are counted from the back: an exported graph takes any number of hops
            before = slice(REACH - lag, -lag)
            both.append(weight_BS1 * past_BS1[:, before])
            moved.append(both[-1] * (x_BSC - past_BSC[:, before]).abs())
        scalars = (
            heard_BS[..., None], weight_BS1, weight_BS1 * at_BS1, weight_BS1 * at_BS1.square(),
            heard_BS[..., None] * (voicing_BS[..., None] > VOICED_FROM), voiced_BS1, *both,
        )  # fmt: skip
        square_BSC = x_BSC.square()
        powers = (weighted_BSC, weighted_BSC * x_BSC, weighted_BSC * square_BSC, weighted_BSC * square_BSC * x_BSC)
        columns = (*powers, weighted_BSC * at_BS1, *moved)
        again = (voiced_BS1 * told_BSV, voiced_BS1 * told_BSV.square())
        parts = (*scalars, *columns, *again)
        rows = x_BSC.shape[0]
        return torch.cat([part.reshape(rows, -1, self.hops, part.shape[2]).sum(2) for part in parts], 2)


def _read(sums_BKZ: Tensor) -> Tensor:
    """[B, K, WIDTH] from the sums after some frames."""
    lags = len(LAGS)
    sizes = [1] * SCALARS + [COLUMNS] * (5 + lags) + [VOICED] * 2
    hops, weight, when, square, voiced_hops, voiced, *rest = sums_BKZ.split(sizes, 2)
    both, (first, second, third, fourth, late, *moved), (told, told_square) = rest[:lags], rest[lags:-2], rest[-2:]
    some = weight.clamp_min(FAINT)
    mean, mean_when = first / some, when / some
    variance = (second / some - mean.square()).clamp_min(0.0)
    deviation = torch.sqrt(variance + SMALLEST_VARIANCE)
    skewed = third / some - 3.0 * mean * second / some + 2.0 * mean**3
    peaked = fourth / some - 4.0 * mean * third / some + 6.0 * mean.square() * second / some - 3.0 * mean**4
    enough = variance + SMALLEST_SPREAD
    shape = (skewed / (enough * torch.sqrt(enough)), torch.log((peaked / enough.square()).clamp_min(0.0) + 0.3))
    spread = (square - weight * mean_when.square()).clamp_min(0.0) + SOME
    slope = (late - mean_when * first) / spread
    steps = [part / (pair + SOME) / deviation for part, pair in zip(moved, both, strict=True)]
    mean_told = told / (voiced + SOME)
    deviation_told = torch.sqrt((told_square / (voiced + SOME) - mean_told.square()).clamp_min(0.0) + SMALLEST_VARIANCE)
    long = hops.clamp_min(1.0)
    lengths = (torch.log(long * HOP_S), weight / long, voiced_hops / long)
    return torch.cat((mean, deviation.log(), slope, *steps, *shape, mean_told, deviation_told.log(), *lengths), 2)
