"""Our streaming voice system: the speech encoder, attentive statistics over all frames so far, two layers.

Letters: B rows, T frames, K asked frames, D channels, Q queries, H heads.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

from clser.models.encoders.speech import FRONTS, SpeechEncoder, SpeechState
from clser.models.features.constants import FRAME_SAMPLES
from clser.models.layers.pooling import AttentivePooling, PoolingState, sums_after, sums_at
from clser.models.systems import About, Streams
from clser.models.tensors import Sequences

ABOUT = About("Voice Mamba: our streaming speech encoder with attentive statistics", "docs/models.md")


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    width: Annotated[int, Meta(ge=32)] = 128
    layers: Annotated[int, Meta(ge=1)] = 2
    expand: Annotated[int, Meta(ge=1)] = 2
    queries: Annotated[int, Meta(ge=1)] = 3
    hidden: Annotated[int, Meta(ge=8)] = 96
    drop: Annotated[float, Meta(ge=0, lt=1)] = 0.15


class State(NamedTuple):
    encoder: SpeechState
    pooled: PoolingState


class VoiceMamba(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """An answer after every frame."""

    streams: Streams = "exactly"
    fronts = FRONTS
    words = ""
    frame_samples = FRAME_SAMPLES

    def __init__(self, config: Config, heads: tuple[str, ...]) -> None:
        super().__init__()
        self.heads = heads
        self.encoder = SpeechEncoder(config.width, config.layers, config.expand, config.drop)
        self.pooling = AttentivePooling(config.width, config.queries)
        self.pooled_norm = nn.LayerNorm(2 * config.queries * config.width)
        self.hidden = nn.Linear(2 * config.queries * config.width, config.hidden)
        self.answer = nn.Linear(config.hidden, len(heads))
        self.drop = nn.Dropout(config.drop)

    def start(self, rows: int) -> State:
        """Before the first frame."""
        return State(self.encoder.start(rows), self.pooling.start(rows))

    def fit_inputs(self, given: Mapping[str, Sequences]) -> None:
        """Takes what is usual from a large batch of speech."""
        self.encoder.fit_inputs(given)

    def enrol(self, given: Mapping[str, Sequences]) -> Tensor:
        """[B, X]: what each clip tells of its speaker. To be added up."""
        return self.encoder.enrol(given)

    def knowing(self, state: State, speaker_BX: Tensor) -> State:
        """The same start, of an utterance of that speaker."""
        return state._replace(encoder=self.encoder.knowing(state.encoder, speaker_BX))

    def forward(
        self, given: Mapping[str, Sequences], state: State, at_BK: Tensor | None = None
    ) -> tuple[Tensor, State]:
        y_BTD, encoder = self.encoder(given, state.encoder)
        length_B = given[FRONTS[0]].length_B
        sums = self.pooling.sums(y_BTD, state.pooled)
        pooled = self.drop(self.pooled_norm(self.pooling.read(sums_at(sums, at_BK))))
        logits_BKH = self.answer(self.drop(torch.relu(self.hidden(pooled))))
        return logits_BKH, State(encoder, sums_after(sums, length_B, state.pooled))


def build(config: Config, heads: tuple[str, ...]) -> VoiceMamba:
    """The system with these settings."""
    return VoiceMamba(config, heads)
