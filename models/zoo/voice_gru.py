"""The default voice network: small enough for a hundred streams on a few cores, and streaming as it was trained.

Letters: B rows, T frames of 40 ms, K asked frames, F features of a frame, M mel bands, D channels, Q queries, H heads.

    log-mel and pitch -> less the utterance's own running mean -> linear -> GRU -> GRU -> sum of the three
                      -> attentive statistics over all frames so far -> two layers -> an answer after every frame
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

from clser.models.errors import GivenError
from clser.models.features.constants import FRAME_SAMPLES, HOPS
from clser.models.features.logmel import BANDS, FEATURES
from clser.models.labels import HEADS
from clser.models.layers.colour import SPEECH_LEVEL, running_colour
from clser.models.layers.pooling import AttentivePooling, PoolingState, sums_at
from clser.models.systems import About, Streams
from clser.models.tensors import Sequences, at_end, real

ABOUT = About("The default voice network: two GRUs and attentive statistics", "docs/models.md")
LOGMEL = "logmel"
BAND_SCALE = 0.4  # one over a band's usual deviation


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    channels: Annotated[int, Meta(ge=1)] = 128
    queries: Annotated[int, Meta(ge=1)] = 3
    hidden: Annotated[int, Meta(ge=1)] = 96
    drop: Annotated[float, Meta(ge=0, lt=1)] = 0.15


class VoiceState(NamedTuple):
    """All that a stream remembers. Zeros: the start of an utterance."""

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
    """An answer after every frame."""

    streams: Streams = "exactly"
    fronts = (LOGMEL,)
    words = ""
    frame_samples = FRAME_SAMPLES

    def __init__(self, config: Config | None = None, heads: Sequence[str] = HEADS) -> None:
        super().__init__()
        config = config or Config()
        channels, queries = config.channels, config.queries
        self.heads = tuple(heads)
        self.register_buffer("prior_M", torch.full((BANDS,), -5.0))
        self.register_buffer("temperature", torch.ones(()))
        self.front = nn.Linear(FEATURES + BANDS, channels)
        self.front_norm = nn.LayerNorm(channels)
        self.gru1 = nn.GRU(channels, channels, batch_first=True)
        self.gru2 = nn.GRU(channels, channels, batch_first=True)
        self.pooling = AttentivePooling(channels, queries)
        self.pooled_norm = nn.LayerNorm(2 * queries * channels)
        self.hidden = nn.Linear(2 * queries * channels, config.hidden)
        self.classes = nn.Linear(config.hidden, len(self.heads))
        self.drop = nn.Dropout(config.drop)
        self.register_load_state_dict_pre_hook(_from_version_1)

    def start(self, rows: int) -> VoiceState:
        """The state before the first frame."""
        channels, zeros = self.front.out_features, self.prior_M.new_zeros
        grus = (zeros(rows, channels), zeros(rows, channels))
        return VoiceState(zeros(rows, 1), zeros(rows, BANDS), *grus, *self.pooling.start(rows))

    def fit_inputs(self, given: Mapping[str, Sequences]) -> None:
        """Takes the mean log-mel bands of speech from a large batch of it; without any, nothing changes."""
        x_BTF, length_B = given[LOGMEL]
        bands_NM = x_BTF[real(length_B, x_BTF.shape[1])][:, : HOPS * BANDS].reshape(-1, HOPS, BANDS).mean(1)
        speech_NM = bands_NM[bands_NM.mean(1) > SPEECH_LEVEL]
        if len(speech_NM):
            self.prior_M.copy_(speech_NM.mean(0))

    def forward(
        self, given: Mapping[str, Sequences], state: VoiceState, at_BK: Tensor | None = None
    ) -> tuple[Tensor, VoiceState]:
        x_BTF, length_B = given[LOGMEL]
        sums, rest = self.encode(x_BTF, state)
        logits_BKH = self.answer(sums_at(sums, at_BK)) / self.temperature
        # A frame never reaches back in time, so what padding does to the frames after it is left behind here.
        after = (at_end(old, new, length_B) for old, new in zip(state, (*rest, *sums), strict=True))
        return logits_BKH, VoiceState(*after)

    def encode(self, features_BTF: Tensor, state: VoiceState) -> tuple[PoolingState, tuple[Tensor, ...]]:
        """Features to the pooling's sums after each frame; and level, mean and both GRUs' states after each."""
        x_BTF, level, mean = self._normalise(features_BTF, state)
        front_BTD = torch.relu(self.front_norm(self.front(x_BTF)))
        one_BTD, _ = self.gru1(self.drop(front_BTD), state.gru1_BD[None])
        two_BTD, _ = self.gru2(self.drop(one_BTD), state.gru2_BD[None])
        sums = self.pooling.sums(front_BTD + one_BTD + two_BTD, PoolingState(*state[4:]))
        return sums, (level, mean, one_BTD, two_BTD)

    def answer(self, sums: PoolingState) -> Tensor:
        """Logits before the temperature, from the pooling's sums at any frames."""
        return self.classes(self.drop(torch.relu(self.hidden(self.drop(self.pooled_norm(self.pooling.read(sums)))))))

    def _normalise(self, features_BTF: Tensor, state: VoiceState) -> tuple[Tensor, Tensor, Tensor]:
        """Each band less its mean over this utterance so far, with that mean's colour beside; the sums after each frame."""
        rows, split = features_BTF.shape[0], HOPS * BANDS
        bands_BTJM = features_BTF[..., :split].reshape(rows, -1, HOPS, BANDS) - self.prior_M
        frame_BTM = bands_BTJM.mean(2)
        speech_BT1 = torch.sigmoid(frame_BTM.mean(2, keepdim=True) + self.prior_M.mean() - SPEECH_LEVEL)
        running = running_colour(frame_BTM, speech_BT1, state.level_B1, state.mean_BM)
        bands_BTF = (bands_BTJM - running.mean_BTM[:, :, None]).reshape(rows, -1, split) * BAND_SCALE
        x_BTF = torch.cat((bands_BTF, features_BTF[..., split:] * 2.0, running.colour_BTM * BAND_SCALE), 2)
        return x_BTF, running.level_BT1, running.sum_BTM


def _from_version_1(_: nn.Module, weights: dict[str, Any], prefix: str, *__: Any) -> None:
    """Files of version 1 call the last layer `heads`."""
    for part in ("weight", "bias"):
        if f"{prefix}heads.{part}" in weights:
            weights[f"{prefix}classes.{part}"] = weights.pop(f"{prefix}heads.{part}")


def from_weights(weights: Mapping[str, Tensor], path: Path) -> VoiceGru:
    """The network whose sizes these are; `path` is where they come from."""
    try:
        queries, channels = weights["pooling.score.weight"].shape
        net = VoiceGru(Config(channels, queries, len(weights["hidden.bias"])))
        net.load_state_dict(dict(weights))
    except (KeyError, ValueError, RuntimeError) as error:  # torch names tensors that lack or differ in a RuntimeError
        words = " ".join(str(error).split())
        raise GivenError(f"model {path}: these are no weights of voice_gru: {words}") from error
    return net


def build(config: Config, heads: Sequence[str]) -> VoiceGru:
    """The system with these settings."""
    return VoiceGru(config, heads)
