"""Words alone: our text encoder, attentive pooling, and a head. What a voice is compared with, and a part beside one.

Letters: B rows, L words, G grams, D channels, Q queries, H heads.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from clser.models.encoders.text import BUCKETS, NUMBERS, TextEncoder, TextState
from clser.models.features.constants import FRAME_SAMPLES
from clser.models.layers.pooling import AttentivePooling, PoolingState, sums_after
from clser.models.systems import WORDS, About, Streams
from clser.models.tensors import Sequences

ABOUT = About("Words by their letters into Mamba layers; nothing is heard", "docs/systems.md")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every choice."""

    width: int = 128
    layers: int = 2
    expand: int = 2
    queries: int = 2
    hidden: int = 96
    buckets: int = BUCKETS
    numbers: int = NUMBERS
    drop: float = 0.2
    gram_drop: float = 0.1


class WordsState(NamedTuple):
    """What is left of the words so far. Zeros: none."""

    text: TextState
    pooling: PoolingState


class WordsMamba(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """The text so far to one answer. Words may come bit by bit: their state is carried, though no sound is."""

    streams: Streams = "end"
    fronts: tuple[str, ...] = ()
    words = "hashed"
    frame_samples = FRAME_SAMPLES

    def __init__(self, config: Config, heads: Sequence[str]) -> None:
        super().__init__()
        self.heads = tuple(heads)
        self.encoder = TextEncoder(
            config.width, config.layers, expand=config.expand, buckets=config.buckets, numbers=config.numbers,
            drop=config.drop, gram_drop=config.gram_drop,
        )  # fmt: skip
        self.pooling = AttentivePooling(config.width, config.queries)
        pooled = 2 * config.queries * config.width
        self.answer = nn.Sequential(
            nn.LayerNorm(pooled), nn.Dropout(config.drop), nn.Linear(pooled, config.hidden), nn.ReLU(),
            nn.Dropout(config.drop), nn.Linear(config.hidden, len(self.heads)),
        )  # fmt: skip

    def start(self, rows: int) -> WordsState:
        """Before the first word."""
        return WordsState(self.encoder.start(rows), self.pooling.start(rows))

    def forward(
        self, given: Mapping[str, Sequences], state: WordsState, at_BK: Tensor | None = None
    ) -> tuple[Tensor, WordsState]:
        """[B, 1, H] after the words given so far, and the state after them. Without a word: the same for all, learnt."""
        ids_BLG, length_B = given[WORDS]
        x_BLD, text = self.encoder(ids_BLG, length_B, state.text)
        sums = self.pooling.sums(x_BLD, state.pooling)
        pooling = sums_after(sums, length_B, state.pooling)
        heard = PoolingState(torch.where(pooling.weight_BQ > 0, pooling.weight_BQ, 1.0), *pooling[1:])
        pooled_BTD = self.pooling.read(PoolingState(*(part[:, None] for part in heard)))
        return self.answer(pooled_BTD), WordsState(text, pooling)


def build(config: Config, heads: Sequence[str]) -> WordsMamba:
    """The system, untrained."""
    return WordsMamba(config, heads)
