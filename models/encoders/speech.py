"""Our speech encoder: log-mel bands, pitch and prosody into Mamba layers, an answer every 40 ms, nothing to download.

Letters: B rows, T frames of 40 ms, J hops of 10 ms in a frame, M mel bands, P prosody numbers, F = M + P, D channels,
X what is known of a speaker.

    frames -> against what is usual for the speaker, less the utterance's running mean -> linear -> Mamba layers -> y_BTD
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clser.models.features.constants import FRAME_SAMPLES, HOPS
from clser.models.features.fronts import front
from clser.models.features.logmel import BANDS
from clser.models.layers.colour import SPEECH_LEVEL, running_colour
from clser.models.layers.mamba import MambaStack, MambaState
from clser.models.layers.speaker import SpeakerNorm
from clser.models.tensors import Sequences, real

FRONTS = ("logmel", "prosody")


class SpeechState(NamedTuple):
    """All that a stream remembers. Zeros: the start of an utterance of somebody unknown."""

    level_B1: Tensor
    """How many frames of this utterance counted as speech."""
    mean_BM: Tensor
    """The sum of their bands, less the prior."""
    speaker_BX: Tensor
    """What was heard of the speaker before this utterance."""
    layers: tuple[MambaState, ...]


class SpeechEncoder(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Frames of `FRONTS` to y_BTD; it streams exactly, and answers better for a speaker it knows."""

    fronts = FRONTS
    frame_samples = FRAME_SAMPLES

    def __init__(self, width: int = 128, layers: int = 2, expand: int = 2, drop: float = 0.15) -> None:
        super().__init__()
        prosody = front("prosody")
        self.width = width
        self.prosody = prosody.width
        self.hops = FRAME_SAMPLES // prosody.samples
        lags = front("logmel").width - HOPS * BANDS
        self.usual = SpeakerNorm(BANDS + prosody.width)
        entering = HOPS * BANDS + lags + BANDS + self.hops * prosody.width + self.usual.width + 1
        self.enter = nn.Linear(entering, width)
        self.enter_norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(drop)
        self.layers = MambaStack(width, layers, expand, drop)
        self.leave_norm = nn.LayerNorm(width)

    def start(self, rows: int) -> SpeechState:
        """Before the first frame."""
        zeros = self.usual.mean_F.new_zeros
        known = zeros(rows, 1 + 2 * self.usual.width)
        return SpeechState(zeros(rows, 1), zeros(rows, BANDS), known, self.layers.start(rows))

    def fit_inputs(self, given: Mapping[str, Sequences]) -> None:
        """Takes the prior from a large batch of speech."""
        frame_BTF, _, _ = self._frames(given)
        speech_BT = self._speech(frame_BTF, given[FRONTS[0]].length_B)[..., 0] > 0.5
        self.usual.fit(frame_BTF[speech_BT])

    def enrol(self, given: Mapping[str, Sequences]) -> Tensor:
        """[B, X]: what each clip tells of its speaker. To be added up."""
        frame_BTF, _, _ = self._frames(given)
        return self.usual.sums(self.usual.plain(frame_BTF), self._speech(frame_BTF, given[FRONTS[0]].length_B))

    def knowing(self, state: SpeechState, speaker_BX: Tensor) -> SpeechState:
        """The same start, of an utterance of that speaker."""
        return state._replace(speaker_BX=speaker_BX)

    def forward(self, given: Mapping[str, Sequences], state: SpeechState) -> tuple[Tensor, SpeechState]:
        length_B = given[FRONTS[0]].length_B
        frame_BTF, logmel_BTX, prosody_BTX = self._frames(given)
        speech_BT1 = self._speech(frame_BTF, length_B)
        mean_B1F, deviation_B1F, known_B11 = self.usual.usual(state.speaker_BX)
        usual_B1M = self.usual.mean_F[:BANDS] + mean_B1F[..., :BANDS] * self.usual.deviation_F[:BANDS]
        bands_BTX, colour_BTM, level_B1, mean_BM = self._less_running_mean(
            frame_BTF[..., :BANDS] - usual_B1M, logmel_BTX, usual_B1M, speech_BT1, state
        )
        # repeated for the hops of a frame
        mean_B1X, deviation_B1X = (x[..., BANDS:].repeat(1, 1, self.hops) for x in (mean_B1F, deviation_B1F))
        far_BTF = (self.usual.plain(frame_BTF) - mean_B1F) / deviation_B1F * known_B11
        known_BT1 = known_B11.expand(-1, frame_BTF.shape[1], -1)
        lags_BTL = logmel_BTX[..., HOPS * BANDS :] * 2.0
        voice_BTX = (prosody_BTX - mean_B1X) / deviation_B1X
        x_BTX = torch.cat((bands_BTX, lags_BTL, colour_BTM, voice_BTX, far_BTF, known_BT1), 2)
        x_BTD = torch.relu(self.enter_norm(self.enter(x_BTX)))
        x_BTD, layers = self.layers(x_BTD, length_B, state.layers)
        return self.leave_norm(x_BTD), SpeechState(level_B1, mean_BM, state.speaker_BX, layers)

    def _frames(self, given: Mapping[str, Sequences]) -> tuple[Tensor, Tensor, Tensor]:
        """What is usual or not (F numbers a frame), the log-mel front as it is, and the prosody of a frame's hops."""
        logmel_BTX = given["logmel"].x_BTD
        rows, frames = logmel_BTX.shape[:2]
        bands_BTM = logmel_BTX[..., : HOPS * BANDS].reshape(rows, frames, HOPS, BANDS).mean(2)
        prosody_BTJP = given["prosody"].x_BTD.reshape(rows, frames, self.hops, self.prosody)
        usual = self.usual
        plain_BTJP = (prosody_BTJP - usual.mean_F[BANDS:]) / usual.deviation_F[BANDS:]
        return torch.cat((bands_BTM, prosody_BTJP.mean(2)), 2), logmel_BTX, plain_BTJP.flatten(2)

    def _speech(self, frame_BTF: Tensor, length_B: Tensor) -> Tensor:
        level_BT1 = frame_BTF[..., :BANDS].mean(2, keepdim=True)
        return torch.sigmoid(level_BT1 - SPEECH_LEVEL) * real(length_B, frame_BTF.shape[1])[..., None]

    def _less_running_mean(
        self, frame_BTM: Tensor, logmel_BTX: Tensor, usual_B1M: Tensor, speech_BT1: Tensor, state: SpeechState
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Bands less their mean over this utterance so far, shrunk to the usual; that mean's colour; and the new sums."""
        scale_M = 1.0 / self.usual.deviation_F[:BANDS]
        bands_BTX = logmel_BTX[..., : HOPS * BANDS]
        bands_BTJM = bands_BTX.reshape(*frame_BTM.shape[:2], HOPS, BANDS) - usual_B1M[:, :, None]
        running = running_colour(frame_BTM, speech_BT1, state.level_B1, state.mean_BM)
        less_BTX = ((bands_BTJM - running.mean_BTM[:, :, None]) * scale_M).flatten(2)
        # padding counts as no speech, so sums over all frames are over each row's own
        level_B1, mean_BM = state.level_B1 + speech_BT1.sum(1), state.mean_BM + (speech_BT1 * frame_BTM).sum(1)
        return less_BTX, running.colour_BTM * scale_M, level_B1, mean_BM
