"""What changes from moment to moment in a voice: pitch, loudness, timbre and brightness, and how fast each does (SERE).

Letters: B rows, S samples, U hops of 10 ms, W samples of a window, T frames of 20 ms, K = 4 features.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.features.cepstra import MelCepstrum
from clser.models.features.constants import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from clser.models.features.framing import Framing
from clser.models.features.pitches import F0, SAMPLES, pitch
from clser.models.tensors import real

FEATURES = ("f0", "rms", "mfcc_2", "centroid")
"""f0: Hz, 0 where unvoiced. rms: of full scale. mfcc_2: the second coefficient after the loudness. centroid: kHz."""
FLOOR = 1e-9  # of power: silence has its centroid at 0
LEAST = 1e-6  # the epsilon of eq. 1: what never changes has no rate of change


class DynamicsState(NamedTuple):
    """Zeros: nothing was heard yet."""

    pitch: Any
    past_BKH: Tensor


class Dynamics(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A front: pcm_BS [B, T*320] -> s_BTK, the four features as they are; each the mean over two windows of 25 ms."""

    samples, width = SAMPLES, len(FEATURES)

    def __init__(self, f0: F0 = "own") -> None:
        super().__init__()
        self.pitch = pitch(f0)
        self.framing = Framing(WINDOW_SAMPLES, HOP_SAMPLES)
        self.cepstrum = MelCepstrum(WINDOW_SAMPLES, coefficients=2)
        self.register_buffer("khz_K", self.cepstrum.power.bins * (SAMPLE_RATE_HZ / WINDOW_SAMPLES / 1e3), False)

    def start(self, rows: int) -> DynamicsState:
        """The state before the first sample."""
        return DynamicsState(self.pitch.start(rows), self.khz_K.new_zeros(rows, self.framing.kept, HOP_SAMPLES))

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: DynamicsState) -> tuple[Tensor, DynamicsState]:
        """The features of each frame, and the state after each row's own `frames_B` frames."""
        hz_BT1, heard = self.pitch(pcm_BS, frames_B, state.pitch)
        window_BUW = self.framing.cut(state.past_BKH, pcm_BS)
        rms_BU1 = window_BUW.square().mean(2, keepdim=True).sqrt()
        power_BUK = self.cepstrum.power(window_BUW)
        log_BUM = torch.log(power_BUK @ self.cepstrum.mel_KM + self.cepstrum.floor)
        timbre_BU1 = (log_BUM @ self.cepstrum.cosine_MC)[..., 1:]
        centroid_BU1 = (power_BUK @ self.khz_K)[..., None] / (power_BUK.sum(2, keepdim=True) + FLOOR)
        three_BU3 = torch.cat((rms_BU1, timbre_BU1, centroid_BU1), 2)
        three_BT3 = three_BU3.reshape(pcm_BS.shape[0], -1, SAMPLES // HOP_SAMPLES, 3).mean(2)
        past_BKH = self.framing.keep(state.past_BKH, pcm_BS, frames_B * (SAMPLES // HOP_SAMPLES))
        return torch.cat((hz_BT1, three_BT3), 2), DynamicsState(heard, past_BKH)


def slower(s_BTK: Tensor, length_B: Tensor, every: int) -> tuple[Tensor, Tensor]:
    """The means over every few frames, of the pitch over voiced ones alone; a last group may hold fewer. And how many."""
    return grouped(s_BTK, _told(s_BTK, length_B), length_B, every)


def averaged(x_BTX: Tensor, length_B: Tensor, every: int) -> tuple[Tensor, Tensor]:
    """The same of any frames."""
    if every == 1:
        return x_BTX, length_B
    return grouped(x_BTX, real(length_B, x_BTX.shape[1])[..., None], length_B, every)


def grouped(x_BTX: Tensor, counted_BTX: Tensor, length_B: Tensor, every: int) -> tuple[Tensor, Tensor]:
    """The means over every few frames of what counts, zeros where nothing does; and how many there are."""
    held = torch.stack((x_BTX.masked_fill(~counted_BTX, 0.0), counted_BTX.expand_as(x_BTX).to(x_BTX.dtype)))
    # as long as there are frames, and no shorter: so many groups that the last one may be all but empty
    held = functional.pad(held, (0, 0, 0, every - 1))
    groups = held.shape[2] // every
    sums_BGX, count_BGX = held[:, :, : groups * every].reshape(2, x_BTX.shape[0], groups, every, -1).sum(3)
    return sums_BGX / count_BGX.clamp_min(1.0), torch.div(length_B + every - 1, every, rounding_mode="floor")


def changes(s_BTK: Tensor, length_B: Tensor) -> Tensor:
    """[B, T, K]: each feature's step from the frame before, over the utterance's own usual step (eq. 1); its sign is kept.

    The pitch has a step between two voiced frames alone, and only those make its usual one. The first frame has none.
    """
    told_BTK = _told(s_BTK, length_B)
    both_BTK = told_BTK[:, 1:] & told_BTK[:, :-1]
    step_BTK = (s_BTK[:, 1:] - s_BTK[:, :-1]).masked_fill(~both_BTK, 0.0)
    usual_B1K = step_BTK.abs().sum(1, keepdim=True) / both_BTK.sum(1, keepdim=True).clamp_min(1)
    # eq. 1: (s_t - s_{t-1}) / (mean over tau of |s_tau - s_{tau-1}| + epsilon)
    return functional.pad(step_BTK / (usual_B1K + LEAST), (0, 0, 1, 0))


def _told(s_BTK: Tensor, length_B: Tensor) -> Tensor:
    """Which features a frame tells of: all but the pitch where it is unvoiced, none in padding."""
    always = torch.ones_like(s_BTK[..., 1:], dtype=torch.bool)
    return real(length_B, s_BTK.shape[1])[..., None] & torch.cat((s_BTK[..., :1] > 0.0, always), 2)
