"""The 103 prosody features of DisVoice as sums over a track: for rows of a batch, and in an exported graph.

`clser.models.features.disvoice` says the same of one recording, is what this is tested against, and tells what is odd
about these features. Here the sound is a track of frames, so that a part of a recording has its features too.

Letters: B rows, S hops of 10 ms, F numbers of a hop, N segments (at most one a hop).
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.features.constants import HOP_SAMPLES
from clser.models.features.disvoice import HIGHEST_HZ, LOWEST_HZ, NAMES, PAUSE_SAMPLES, SILENCE, STEP_S
from clser.models.features.prosody import NEUTRAL_HZ, PITCH_DELAY_MS, Prosody, ProsodyState, f0_hz
from clser.models.tensors import real

WIDTH = len(NAMES)
LATE = round(PITCH_DELAY_MS / (1e3 * STEP_S)) - 1
"""Hops by which the pitch comes after the sound it speaks of."""
PAUSE_HOPS = PAUSE_SAMPLES // HOP_SAMPLES
UNIT_DB = 20.0
FAINT = 1e-6  # 120 dB below full scale
CONSTANT = 1e-5  # values that differ by no more than this share have no skewness: single precision
LEAST_VARIANCE = 1e-10  # what a line through two points leaves over is rounding, and has no shape either
FAR = 1e9


class DisvoiceTrack(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A front, every 10 ms: the pitch in units of 150 Hz (0: unvoiced), the hop's mean square and its largest sample, both in
    units of 20 dB."""

    samples = HOP_SAMPLES
    width = 3

    def __init__(self) -> None:
        super().__init__()
        self.prosody = Prosody(LOWEST_HZ, HIGHEST_HZ)
        # Jitter, shimmer and rate are not asked for, so what they look back to is not kept.
        self.register_buffer("kept_C", torch.tensor([1.0, 0.0, 0.0, 0.0]), persistent=False)

    def start(self, rows: int) -> ProsodyState:
        """The state before the first sample."""
        state: ProsodyState = self.prosody.start(rows)
        return state

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: ProsodyState) -> tuple[Tensor, ProsodyState]:
        """The three numbers of each hop, and the state after each row's own `frames_B` hops."""
        x_BSF, after = self.prosody(pcm_BS, frames_B, state)
        hops = pcm_BS.reshape(pcm_BS.shape[0], -1, HOP_SAMPLES)
        power_BS, peak_BS = hops.square().mean(2), hops.abs().amax(2).square()
        levels = [
            torch.log(level_BS + FAINT**2) * (10.0 / math.log(10.0) / UNIT_DB) for level_BS in (power_BS, peak_BS)
        ]
        kept = ProsodyState(after.hops_BKC, after.past_BKC * self.kept_C)
        return torch.stack((f0_hz(x_BSF) / NEUTRAL_HZ, *levels), 2), kept


class Segments(NamedTuple):
    """Of each run of hops, in the order they come; zeros where there is none."""

    count_BN: Tensor
    mean_BN: Tensor
    std_BN: Tensor
    skew_BN: Tensor
    kurtosis_BN: Tensor
    constant_BN: Tensor
    """Whether it has no skewness to speak of."""
    slope_BN: Tensor
    """A second."""
    error_BN: Tensor
    """Mean square, of the straight line."""


def disvoice_of(x_BSF: Tensor, length_B: Tensor) -> Tensor:
    """[B, 103], in the order of `disvoice.NAMES`, of a track from `DisvoiceTrack`. Zeros of a row without a hop.

    The sound's mean is not taken off, and the last 30 ms, whose pitch is not known yet, are not heard.
    """
    x_BSF = functional.pad(x_BSF, (0, 0, 0, LATE + 1))  # so that there is a hop
    hops = x_BSF.shape[1] - LATE
    length_B = (length_B - LATE).clamp_min(0)
    real_BS = real(length_B, hops)
    hz_BS = _mended(NEUTRAL_HZ * x_BSF[:, LATE:, 0].float(), real_BS)
    power_BS, peak_BS = (UNIT_DB * x_BSF[:, :hops, k].float() for k in (1, 2))
    loudest_B1 = peak_BS.masked_fill(~real_BS, -FAR).amax(1, keepdim=True)
    power_BS = torch.pow(10.0, (power_BS - loudest_B1).clamp(-150.0, 0.0) / 10.0)
    next_BS = torch.cat((power_BS[:, 1:], power_BS[:, :1]), 1)
    db_BS = torch.log((0.5 * (power_BS + next_BS)).clamp_min(SILENCE)) * (10.0 / math.log(10.0))

    voiced_BS = (hz_BS > 0) & real_BS
    kept_BS, rest_BS = _but_last(voiced_BS), _but_last(real_BS & ~voiced_BS)
    number_BS = _numbered(rest_BS)
    short_BS = (_sums(rest_BS, number_BS).gather(1, number_BS) - 1 <= PAUSE_HOPS) & rest_BS
    kinds = (kept_BS, short_BS, rest_BS & ~short_BS)
    found = [*_of_pitch(hz_BS, voiced_BS, length_B), *_of_energy(db_BS, kinds[0]), *_of_energy(db_BS, kinds[1])]
    told_BF = torch.stack([*found, *_of_durations(kinds, length_B)], 1)
    return told_BF.masked_fill((length_B < 1)[:, None], 0.0)


def _mended(hz_BS: Tensor, real_BS: Tensor) -> Tensor:
    """A hop that is voiced, or unvoiced, alone between two that are not becomes like them."""
    hz_BS = hz_BS.masked_fill(~real_BS, 0.0)
    before_BS, after_BS = _earlier(hz_BS), torch.cat((hz_BS[:, 1:], torch.zeros_like(hz_BS[:, :1])), 1)
    # At either end there is one neighbour, which stands for two.
    edge_BS = torch.cat((hz_BS[:, :1], before_BS[:, 1:]), 1)
    last_BS = real_BS & ~torch.cat((real_BS[:, 1:], torch.zeros_like(real_BS[:, :1])), 1)
    follow_BS = torch.where(last_BS, hz_BS, after_BS)
    both_BS, none_BS = (edge_BS > 0) & (follow_BS > 0), (edge_BS == 0) & (follow_BS == 0)
    filled_BS = torch.where((hz_BS == 0) & both_BS, (before_BS + after_BS) / 2.0, hz_BS)
    return filled_BS.masked_fill(none_BS | ~real_BS, 0.0)


def _earlier(x_BS: Tensor) -> Tensor:
    """The hop before; zero before the first."""
    return torch.cat((torch.zeros_like(x_BS[:, :1]), x_BS[:, :-1]), 1)


def _numbered(mask_BS: Tensor) -> Tensor:
    """The number of each hop's run, from 0; elsewhere that of the run before it, or 0."""
    return ((mask_BS & ~_earlier(mask_BS)).long().cumsum(1) - 1).clamp_min(0)


def _sums(x_BS: Tensor, number_BS: Tensor) -> Tensor:
    """[B, N]: over the hops of each number."""
    x_BS = x_BS.float()
    return torch.zeros_like(x_BS).scatter_add(1, number_BS, x_BS)


def _runs(mask_BS: Tensor) -> Tensor:
    """[B, 1]: how many there are."""
    return (mask_BS & ~_earlier(mask_BS)).long().sum(1, keepdim=True)


def _but_last(mask_BS: Tensor) -> Tensor:
    """Without the last run."""
    return mask_BS & (_numbered(mask_BS) < _runs(mask_BS) - 1)


def _first(count_B1: Tensor, x_BN: Tensor) -> Tensor:
    """[B, N] of booleans: the first so many."""
    return torch.arange(x_BN.shape[1], device=x_BN.device)[None] < count_B1


def _segments(x_BS: Tensor, mask_BS: Tensor, number_BS: Tensor) -> Segments:
    """Of the hops of `mask_BS` with each number."""
    there_BS = mask_BS.float()
    count_BN = _sums(there_BS, number_BS)
    some_BN = count_BN.clamp_min(1.0)
    at_BS = torch.arange(x_BS.shape[1], device=x_BS.device)[None] * STEP_S * there_BS
    mean_BN, when_BN = (_sums(y_BS * there_BS, number_BS) / some_BN for y_BS in (x_BS, at_BS))
    away_BS = (x_BS - mean_BN.gather(1, number_BS)) * there_BS
    when_BS = (at_BS - when_BN.gather(1, number_BS)) * there_BS
    second, third, fourth = (_sums(away_BS**k, number_BS) / some_BN for k in (2, 3, 4))
    slope_BN = _sums(when_BS * away_BS, number_BS) / _sums(when_BS.square(), number_BS).clamp_min(1e-9)
    error_BN = _sums((away_BS - slope_BN.gather(1, number_BS) * when_BS).square(), number_BS) / some_BN
    return Segments(count_BN, mean_BN, torch.sqrt(second), *_shape(mean_BN, second, third, fourth), slope_BN, error_BN)


def _shape(mean: Tensor, second: Tensor, third: Tensor, fourth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Skewness, excess kurtosis, and whether the values are too much alike to have any; they are 0 then."""
    constant = second <= (CONSTANT * mean).square() + LEAST_VARIANCE
    some = torch.where(constant, torch.ones_like(second), second)
    skewness, kurtosis = third / (some * torch.sqrt(some)), fourth / some.square() - 3.0
    return skewness.masked_fill(constant, 0.0), kurtosis.masked_fill(constant, 0.0), constant


def _six(x_BS: Tensor, mask_BS: Tensor) -> list[Tensor]:
    """Mean, deviation, largest, smallest, skewness, kurtosis of those of the mask, each [B]; zeros of none."""
    x_BS = x_BS.masked_fill(~mask_BS, 0.0)
    count_B = mask_BS.sum(1)
    some_B, none_B = count_B.clamp_min(1), count_B < 1
    mean_B = x_BS.sum(1) / some_B
    away_BS = (x_BS - mean_B[:, None]).masked_fill(~mask_BS, 0.0)
    second, third, fourth = ((away_BS**k).sum(1) / some_B for k in (2, 3, 4))
    skewness, kurtosis, _ = _shape(mean_B, second, third, fourth)
    most_B, least_B = x_BS.masked_fill(~mask_BS, -FAR).amax(1), x_BS.masked_fill(~mask_BS, FAR).amin(1)
    found = (mean_B, torch.sqrt(second), most_B, least_B, skewness, kurtosis)
    return [each.masked_fill(none_B, 0.0) for each in found]


def _four(x_BS: Tensor, mask_BS: Tensor) -> list[Tensor]:
    mean, deviation, _, _, skewness, kurtosis = _six(x_BS, mask_BS)
    return [mean, deviation, skewness, kurtosis]


def _of_pitch(hz_BS: Tensor, voiced_BS: Tensor, length_B: Tensor) -> list[Tensor]:
    """Features 1 to 30."""
    piece_BS = voiced_BS & real(length_B - 1, hz_BS.shape[1])
    number_BS = _numbered(piece_BS)
    each = _segments(hz_BS, piece_BS, number_BS)
    tilts, errors = (_six(x_BN, each.count_BN > 1) for x_BN in (each.slope_BN, each.error_BN))
    last_BS = piece_BS & (number_BS == _runs(piece_BS) - 1)
    ends = [*_six(hz_BS, piece_BS & (number_BS == 0)), *_six(hz_BS, last_BS)]
    return [*_six(hz_BS, voiced_BS), *(one for both in zip(tilts, errors, strict=True) for one in both), *ends]


def _of_energy(db_BS: Tensor, kind_BS: Tensor) -> list[Tensor]:
    """Features 31 to 54 of voiced segments, 55 to 78 of unvoiced ones."""
    number_BS, runs_B1 = _numbered(kind_BS), _runs(kind_BS)
    after_BS = torch.cat((kind_BS[:, 1:], torch.zeros_like(kind_BS[:, :1])), 1)
    heard_BS = kind_BS & _earlier(kind_BS) & after_BS  # from a run's second hop on, each with the next one
    each = _segments(db_BS, heard_BS, number_BS)
    long_BN, filled_BN = each.count_BN > 1, each.count_BN > 0
    some_B = long_BN.sum(1).clamp_min(1)
    means = [x_BN.masked_fill(~long_BN, 0.0).sum(1) / some_B for x_BN in each[1:5]]
    # A segment whose shape is undefined makes the mean of all undefined.
    odd_B = (long_BN & each.constant_BN).any(1)
    means[2:] = [mean_B.masked_fill(odd_B, 0.0) for mean_B in means[2:]]
    # The first with a frame; and of the two last, the first run apart, the later one that has any.
    none_B1 = torch.full_like(runs_B1, -1)
    first_B1 = filled_BN.long().argmax(1, keepdim=True)
    last_B1 = none_B1
    for back in (2, 1):
        at_B1 = (runs_B1 - back).clamp_min(0)
        last_B1 = torch.where((at_B1 >= 1) & filled_BN.gather(1, at_B1), at_B1, last_B1)
    ends = [*_six(db_BS, heard_BS & (number_BS == first_B1)), *_six(db_BS, heard_BS & (number_BS == last_B1))]
    found = [*means, *_four(each.slope_BN, long_BN), *_four(each.error_BN, long_BN), *ends]
    return [each_B.masked_fill(runs_B1[:, 0] < 2, 0.0) for each_B in found]


def _of_durations(kinds: tuple[Tensor, ...], length_B: Tensor) -> list[Tensor]:
    """Features 79 to 103."""
    found, means = [_runs(kinds[0])[:, 0] / (length_B.clamp_min(1) * STEP_S)], []
    for kind_BS in kinds:
        runs_B1 = _runs(kind_BS)
        hops_BN = _sums(kind_BS, _numbered(kind_BS)) - 1.0
        enough_BN = _first(runs_B1, hops_BN) & (runs_B1 > 1)
        mean, deviation, most, least, skewness, kurtosis = _six(hops_BN * STEP_S, enough_BN)
        found += [mean, deviation, skewness, kurtosis, most, least]
        means.append(mean)
    voiced, unvoiced, pause = means
    undefined_B = (voiced <= 0) | (unvoiced <= 0) | (pause <= 0)
    some_voiced, some_unvoiced, some_pause = (mean.clamp_min(STEP_S / 100.0) for mean in means)
    both = some_voiced + some_unvoiced
    ratios = (
        pause / both, pause / some_unvoiced, unvoiced / both, voiced / both, voiced / some_pause, unvoiced / some_pause
    )  # fmt: skip
    return [*found, *(ratio.masked_fill(undefined_B, 0.0) for ratio in ratios)]
