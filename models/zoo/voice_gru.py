"""The default voice network: small enough for a hundred streams on a few cores, and streaming as it was trained.

Letters: B rows, S samples, T frames of 40 ms, F features of a frame, M mel bands, D channels, Q queries, H heads.

    pcm_BS -> log-mel and pitch -> less the utterance's own running mean -> linear -> GRU -> GRU -> sum of the three
           -> attentive statistics over all frames so far -> two layers -> logits_BTH, an answer after every frame
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from typing import NamedTuple

import torch
from torch import Tensor, nn

from clser.models.features.constants import HOPS
from clser.models.features.logmel import BANDS, FEATURES, LOW_SAMPLES, TAIL_SAMPLES, LogMel, LogMelState
from clser.models.labels import HEADS
from clser.models.layers.pooling import AttentivePooling, PoolingState

CHANNELS = 128
QUERIES = 3
HIDDEN = 96
COLOUR_PRIOR_FRAMES = 10.0  # how many frames of speech the prior mean's colour counts for: 0.4 s
LOUDNESS_PRIOR_FRAMES = 0.5  # and its loudness, which a microphone's gain decides: forgotten at once
SPEECH_LEVEL = -6.0  # mean log-mel at which a frame counts half towards the running mean
BAND_SCALE = 0.4  # one over a band's usual deviation


class VoiceState(NamedTuple):
    """All that a stream remembers. Zeros: the start of an utterance."""

    tail_BS: Tensor
    low_BS: Tensor
    level_B1: Tensor
    """How many frames counted towards the running mean."""
    mean_BM: Tensor
    """The sum of their log-mel bands, less the prior mean."""
    gru1_BD: Tensor
    gru2_BD: Tensor
    weight_BQ: Tensor
    first_BQD: Tensor
    second_BQD: Tensor


class VoiceGru(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Sound to logits; the state is an argument and a result."""

    def __init__(
        self, channels: int = CHANNELS, queries: int = QUERIES, hidden: int = HIDDEN, drop: float = 0.15
    ) -> None:
        super().__init__()
        self.channels = channels
        self.logmel = LogMel()
        self.register_buffer("prior_M", torch.full((BANDS,), -5.0))
        self.register_buffer("temperature", torch.ones(()))
        self.front = nn.Linear(FEATURES + BANDS, channels)
        self.front_norm = nn.LayerNorm(channels)
        self.gru1 = nn.GRU(channels, channels, batch_first=True)
        self.gru2 = nn.GRU(channels, channels, batch_first=True)
        self.pooling = AttentivePooling(channels, queries)
        self.pooled_norm = nn.LayerNorm(2 * queries * channels)
        self.hidden = nn.Linear(2 * queries * channels, hidden)
        self.heads = nn.Linear(hidden, len(HEADS))
        self.drop = nn.Dropout(drop)

    def start(self, rows: int) -> VoiceState:
        """The state before the first frame."""
        return VoiceState(*(self.prior_M.new_zeros(rows, *shape) for shape in self.shapes()))

    def shapes(self) -> VoiceState:
        """The shape of one row's part of the state."""
        channels, queries = self.channels, self.pooling.queries
        sums = ((queries,), (queries, channels), (queries, channels))
        return VoiceState((TAIL_SAMPLES,), (LOW_SAMPLES,), (1,), (BANDS,), (channels,), (channels,), *sums)

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: VoiceState) -> tuple[Tensor, VoiceState]:
        """The calibrated logits after each frame, and the state after each row's own `frames_B` frames."""
        features_BTF, sound = self.logmel(pcm_BS, LogMelState(state.tail_BS, state.low_BS))
        sums, rest = self.encode(features_BTF, state)
        logits_BTH = self.answer(sums) / self.temperature
        # A frame never reaches back in time, so what padding does to the frames after it is left behind here.
        after = VoiceState(*sound, *rest, *(_with_start(old, new) for old, new in zip(state[6:], sums, strict=True)))
        at_B = torch.arange(pcm_BS.shape[0], device=frames_B.device) * (logits_BTH.shape[1] + 1) + frames_B
        parts = zip(after, self.shapes(), strict=True)
        return logits_BTH, VoiceState(*(x_BTX.reshape(-1, *shape).index_select(0, at_B) for x_BTX, shape in parts))

    def encode(self, features_BTF: Tensor, state: VoiceState) -> tuple[PoolingState, tuple[Tensor, ...]]:
        """Features to the pooling's sums after each frame; and level, mean and both GRUs' states, [B, T+1, ...]."""
        x_BTF, level, mean = self._normalise(features_BTF, state)
        front_BTD = torch.relu(self.front_norm(self.front(x_BTF)))
        one_BTD, _ = self.gru1(self.drop(front_BTD), state.gru1_BD[None])
        two_BTD, _ = self.gru2(self.drop(one_BTD), state.gru2_BD[None])
        sums = self.pooling.sums(front_BTD + one_BTD + two_BTD, PoolingState(*state[6:]))
        grus = (_with_start(state.gru1_BD, one_BTD), _with_start(state.gru2_BD, two_BTD))
        return sums, (_with_start(state.level_B1, level), _with_start(state.mean_BM, mean), *grus)

    def answer(self, sums: PoolingState) -> Tensor:
        """Logits before the temperature, from the pooling's sums at any frames."""
        return self.heads(self.drop(torch.relu(self.hidden(self.drop(self.pooled_norm(self.pooling.read(sums)))))))

    def _normalise(self, features_BTF: Tensor, state: VoiceState) -> tuple[Tensor, Tensor, Tensor]:
        """Each band less its mean over this utterance so far, shrunk to the prior: gain and colour of a microphone go.

        The mean's colour stands beside: it tells something of the voice, where its loudness tells of the gain.
        """
        rows, split = features_BTF.shape[0], HOPS * BANDS
        bands_BTJM = features_BTF[..., :split].reshape(rows, -1, HOPS, BANDS) - self.prior_M
        frame_BTM = bands_BTJM.mean(2)
        speech_BT1 = torch.sigmoid(frame_BTM.mean(2, keepdim=True) + self.prior_M.mean() - SPEECH_LEVEL)
        level_BT1 = state.level_B1[:, None] + speech_BT1.cumsum(1)
        mean_BTM = state.mean_BM[:, None] + (speech_BT1 * frame_BTM).cumsum(1)
        loudness_BT1 = mean_BTM.mean(2, keepdim=True)
        colour_BTM = (mean_BTM - loudness_BT1) / (level_BT1 + COLOUR_PRIOR_FRAMES)
        running_BTM = colour_BTM + loudness_BT1 / (level_BT1 + LOUDNESS_PRIOR_FRAMES)
        bands_BTF = (bands_BTJM - running_BTM[:, :, None]).reshape(rows, -1, split) * BAND_SCALE
        return torch.cat((bands_BTF, features_BTF[..., split:] * 2.0, colour_BTM * BAND_SCALE), 2), level_BT1, mean_BTM


def _with_start(start_BX: Tensor, x_BTX: Tensor) -> Tensor:
    return torch.cat((start_BX[:, None], x_BTX), 1)
