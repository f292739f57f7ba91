"""Our text encoder: words by their letters into Mamba layers, any language, nothing to download.

Letters: B rows, L words, G grams of a word, E numbers of a gram, D channels.

A system is given its text as `Sequences`: ids_BLG in the place of x_BTD, and how many words each row has.
"""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.encoders.words import MOST_WORDS, hashed
from clser.models.errors import GivenError
from clser.models.layers.mamba import MambaStack, MambaState
from clser.models.tensors import Sequences

BUCKETS = 2**15
NUMBERS = 96


def tokenise(texts: Sequence[str], most_words: int = MOST_WORDS) -> Sequences:
    """(ids_BLG, length_B) of int64; the same on every machine."""
    ids_BLG, length_B = hashed(texts, most_words)
    return Sequences(torch.from_numpy(ids_BLG), torch.from_numpy(length_B))


def tokenise_pairs(texts: Sequence[str], most_words: int = MOST_WORDS) -> Sequences:
    """The same with the number of each word and the one before it."""
    ids_BLG, length_B = hashed(texts, most_words, pairs=True)
    return Sequences(torch.from_numpy(ids_BLG), torch.from_numpy(length_B))


TOKENISERS: MappingProxyType[str, Callable[[Sequence[str]], Sequences]] = MappingProxyType(
    {"hashed": tokenise, "pairs": tokenise_pairs}
)
"""What a system's `words` may name, beside `hub:NAME` and `tuned:NAME`."""
TUNED = "tuned:"
"""Before a pretrained text encoder's name where the system has it within and trains it along: it is given its tokens."""


def tokeniser(name: str) -> Callable[[Sequence[str]], Sequences]:
    """What cuts texts up for a system whose `words` is that name."""
    if name.startswith(TUNED):
        from clser.models.encoders.tuned_text import token_ids  # noqa: PLC0415 - loads transformers

        return token_ids(name)
    if name not in TOKENISERS:
        raise GivenError(
            f"words {name!r}: there is no such way to cut text; choose {', '.join(TOKENISERS)} or hub:NAME"
        )
    return TOKENISERS[name]


class HashedWords(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """ids_BLG -> [B, L, D]: the word's own numbers and the sum of its runs', from buckets they share, then a linear layer.

    After Bojanowski et al. 2017, section 3.2, with the word apart from its runs. At padding, the linear layer's bias.
    """

    def __init__(self, width: int, buckets: int = BUCKETS, numbers: int = NUMBERS, drop: float = 0.1) -> None:
        super().__init__()
        assert buckets > 1
        self.width, self.buckets, self.drop = width, buckets, drop
        self.buckets_KE = nn.Embedding(buckets, numbers, padding_idx=0)
        self.leave = nn.Linear(numbers, width)

    def forward(self, ids_BLG: Tensor) -> Tensor:
        there_BLG = ids_BLG > 0
        if self.training and self.drop:
            # a word must be told by some of its grams too: others will be written otherwise
            there_BLG = there_BLG & (torch.rand(ids_BLG.shape, device=ids_BLG.device) >= self.drop)
        bucket_BLG = torch.where(there_BLG, 1 + (ids_BLG - 1) % (self.buckets - 1), 0)
        own_BLE = self.buckets_KE(bucket_BLG[..., 0])
        runs_BLE = self._sum(bucket_BLG[..., 1:])
        # many runs or few, their sum varies alike; and the word itself says as much as all of them
        runs_BLE = runs_BLE * torch.rsqrt(there_BLG[..., 1:].sum(2, keepdim=True).clamp_min(1).float())
        return self.leave(own_BLE + runs_BLE)

    def _sum(self, bucket_BLG: Tensor) -> Tensor:
        if torch.jit.is_tracing():  # the exporter turns a bag into a loop
            return self.buckets_KE(bucket_BLG).sum(2)
        weight = self.buckets_KE.weight
        bag = functional.embedding_bag(bucket_BLG.flatten(0, 1), weight, mode="sum", padding_idx=0)
        return bag.unflatten(0, bucket_BLG.shape[:2])


class TextState(NamedTuple):
    """What is left of the words so far. Zeros: none."""

    layers: tuple[MambaState, ...]


class TextEncoder(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """ids_BLG -> y_BLD, word by word: each hears those before it, and words may be added at any time."""

    def __init__(
        self, width: int = 128, layers: int = 2, *, expand: int = 2, buckets: int = BUCKETS, numbers: int = NUMBERS,
        drop: float = 0.15, gram_drop: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.width = width
        self.words = HashedWords(width, buckets, numbers, gram_drop)
        self.drop = nn.Dropout(drop)
        self.layers = MambaStack(width, layers, expand, drop)
        self.leave_norm = nn.LayerNorm(width)

    def start(self, rows: int) -> TextState:
        """Before the first word."""
        return TextState(self.layers.start(rows))

    def forward(self, ids_BLG: Tensor, length_B: Tensor, state: TextState) -> tuple[Tensor, TextState]:
        """What each word comes to, and the state after each row's own `length_B` words."""
        x_BLD, layers = self.layers(self.drop(self.words(ids_BLG)), length_B, state.layers)
        return self.leave_norm(x_BLD), TextState(layers)
