"""Our speech encoder: log-mel bands, pitch and prosody into Mamba layers, an answer every 40 ms, nothing to download.

Letters: B rows, T frames of 40 ms, J hops of 10 ms in a frame, M mel bands, P prosody numbers, D channels, X any width.

    frames -> less the utterance's running mean, against what is usual -> linear -> Mamba layers -> y_BTD
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clser.models.features.constants import FRAME_SAMPLES, HOPS
from clser.models.features.fronts import front
from clser.models.features.logmel import BANDS
from clser.models.layers.averages import SMALLEST_DEVIATION
from clser.models.layers.colour import SPEECH_LEVEL, running_colour
from clser.models.layers.mamba import MambaStack, MambaState
from clser.models.tensors import Sequences, real

FRONTS = ("logmel", "prosody")


class SpeechState(NamedTuple):
    """All that a stream remembers. Zeros: the start of an utterance."""

    level_B1: Tensor
    """How many frames of this utterance counted as speech."""
    mean_BM: Tensor
    """The sum of their bands, less the prior."""
    layers: tuple[MambaState, ...]


class SpeechEncoder(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Frames of `FRONTS` to y_BTD; it streams exactly."""

    fronts = FRONTS
    frame_samples = FRAME_SAMPLES

    def __init__(self, width: int = 128, layers: int = 2, expand: int = 2, drop: float = 0.15) -> None:
        super().__init__()
        prosody = front("prosody")
        self.width = width
        self.prosody = prosody.width
        self.hops = FRAME_SAMPLES // prosody.samples
        lags = front("logmel").width - HOPS * BANDS
        for name, width_of in (("M", BANDS), ("P", prosody.width)):
            self.register_buffer(f"mean_{name}", torch.zeros(width_of))
            self.register_buffer(f"deviation_{name}", torch.ones(width_of))
        entering = HOPS * BANDS + lags + BANDS + self.hops * prosody.width
        self.enter = nn.Linear(entering, width)
        self.enter_norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(drop)
        self.layers = MambaStack(width, layers, expand, drop)
        self.leave_norm = nn.LayerNorm(width)

    def start(self, rows: int) -> SpeechState:
        """Before the first frame."""
        zeros = self.mean_M.new_zeros
        return SpeechState(zeros(rows, 1), zeros(rows, BANDS), self.layers.start(rows))

    def fit_inputs(self, given: Mapping[str, Sequences]) -> None:
        """Takes what is usual from a large batch of speech; without any, nothing changes."""
        bands_BTM, _, prosody_BTJP = self._frames(given)
        speech_BT = self._speech(bands_BTM, given[FRONTS[0]].length_B)[..., 0] > 0.5
        if int(speech_BT.sum()) > 1:
            for name, x_NX in (("M", bands_BTM[speech_BT]), ("P", prosody_BTJP.mean(2)[speech_BT])):
                getattr(self, f"mean_{name}").copy_(x_NX.mean(0))
                getattr(self, f"deviation_{name}").copy_(x_NX.std(0).clamp_min(SMALLEST_DEVIATION))

    def forward(self, given: Mapping[str, Sequences], state: SpeechState) -> tuple[Tensor, SpeechState]:
        length_B = given[FRONTS[0]].length_B
        x_BTD, level_B1, mean_BM = self._entering(given, state)
        x_BTD, layers = self.layers(x_BTD, length_B, state.layers)
        return self.leave_norm(x_BTD), SpeechState(level_B1, mean_BM, layers)

    def listen(self, given: Mapping[str, Sequences]) -> tuple[Tensor, ...]:
        """Every layer [B, T, D], of rows from their beginnings on: what goes into the first, what each makes of it."""
        length_B = given[FRONTS[0]].length_B
        state = self.start(length_B.shape[0])
        x_BTD, *_ = self._entering(given, state)
        found = [x_BTD]
        for layer, before in zip(self.layers, state.layers, strict=True):
            x_BTD, _ = layer(x_BTD, length_B, before)
            found.append(x_BTD)
        return (*found[:-1], self.leave_norm(x_BTD))

    def _entering(self, given: Mapping[str, Sequences], state: SpeechState) -> tuple[Tensor, Tensor, Tensor]:
        """What the first layer hears, and the new sums."""
        bands_BTM, logmel_BTX, prosody_BTJP = self._frames(given)
        speech_BT1 = self._speech(bands_BTM, given[FRONTS[0]].length_B)
        less_BTX, colour_BTM, level_B1, mean_BM = self._less_running_mean(bands_BTM, logmel_BTX, speech_BT1, state)
        lags_BTL = logmel_BTX[..., HOPS * BANDS :] * 2.0
        voice_BTX = ((prosody_BTJP - self.mean_P) / self.deviation_P).flatten(2)
        x_BTX = torch.cat((less_BTX, lags_BTL, colour_BTM, voice_BTX), 2)
        return torch.relu(self.enter_norm(self.enter(x_BTX))), level_B1, mean_BM

    def _frames(self, given: Mapping[str, Sequences]) -> tuple[Tensor, Tensor, Tensor]:
        """Each frame's mean bands, the log-mel front as it is, and the prosody of a frame's hops."""
        logmel_BTX = given["logmel"].x_BTD
        rows, frames = logmel_BTX.shape[:2]
        bands_BTM = logmel_BTX[..., : HOPS * BANDS].reshape(rows, frames, HOPS, BANDS).mean(2)
        return bands_BTM, logmel_BTX, given["prosody"].x_BTD.reshape(rows, frames, self.hops, self.prosody)

    def _speech(self, bands_BTM: Tensor, length_B: Tensor) -> Tensor:
        level_BT1 = bands_BTM.mean(2, keepdim=True)
        return torch.sigmoid(level_BT1 - SPEECH_LEVEL) * real(length_B, bands_BTM.shape[1])[..., None]

    def _less_running_mean(
        self, bands_BTM: Tensor, logmel_BTX: Tensor, speech_BT1: Tensor, state: SpeechState
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Bands less their mean over this utterance so far, shrunk to the usual; that mean's colour; and the new sums."""
        scale_M, far_BTM = 1.0 / self.deviation_M, bands_BTM - self.mean_M
        bands_BTX = logmel_BTX[..., : HOPS * BANDS]
        bands_BTJM = bands_BTX.reshape(*bands_BTM.shape[:2], HOPS, BANDS) - self.mean_M
        running = running_colour(far_BTM, speech_BT1, state.level_B1, state.mean_BM)
        less_BTX = ((bands_BTJM - running.mean_BTM[:, :, None]) * scale_M).flatten(2)
        # padding counts as no speech, so sums over all frames are over each row's own
        level_B1, mean_BM = state.level_B1 + speech_BT1.sum(1), state.mean_BM + (speech_BT1 * far_BTM).sum(1)
        return less_BTX, running.colour_BTM * scale_M, level_B1, mean_BM
