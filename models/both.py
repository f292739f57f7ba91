"""What voice and words say together: two opinions ask one another, and one answer over the voice's heads comes out.

Letters: B rows, H heads of the voice, E those that are emotions, C published classes, X numbers of a text, N tokens of one
side, D channels, F hidden channels.

    voice: logits of all heads -> N tokens \\
                                            layers x 2 directions -> means -> gates g, evidence e_C
    words: logits of C, vector -> N tokens /

    answer_C = g_voice v_C + g_words e_C, by published class, spread over the voice's heads of that class

The shape is BiFormer's (BDCC 9(11):285), over a handful of tokens. Three things are built in and need not be learnt: without
a transcript the answer is the voice's own, to the last bit; a transcript that the recogniser mistrusts weighs less than the
same one trusted; and whether there is a voice to judge at all (the head `none`) is the voice's affair alone.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.nn import functional

from clser.models.labels import NONE, PUBLISHED, PUBLISHED_AS
from clser.models.layers.crossing import CrossLayer

LEAST = 0.003
"""Added to a class's probability before its logarithm: how impossible it is tells no more below this."""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    width: Annotated[int, Meta(ge=4)] = 32
    tokens: Annotated[int, Meta(ge=1)] = 3
    """Of each side."""
    layers: Annotated[int, Meta(ge=1)] = 2
    attention_heads: Annotated[int, Meta(ge=1)] = 4
    hidden: Annotated[int, Meta(ge=4)] = 48
    drop: Annotated[float, Meta(ge=0, lt=1)] = 0.3
    limit: Annotated[float, Meta(gt=0)] = 6.0
    """Nats that words can say for or against a class at most."""


class Told(NamedTuple):
    logits_BH: Tensor
    weights_B2: Tensor
    """How much voice and words counted: each one's share in the spread of the classes' log-odds."""


class Both(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Nothing is kept between calls: the opinions of the moment come in, one comes out."""

    def __init__(self, config: Config, heads: Sequence[str], words_heads: Sequence[str], vector: int) -> None:
        super().__init__()
        assert set(words_heads) == set(PUBLISHED) and vector >= 0
        self.config, self.heads, self.words_heads, self.vector = config, tuple(heads), tuple(words_heads), vector
        emotions = [n for n, head in enumerate(heads) if head != NONE]
        published = torch.tensor([PUBLISHED.index(PUBLISHED_AS[heads[n]]) for n in emotions])
        self.register_buffer("emotion_E", torch.tensor(emotions), persistent=False)
        self.register_buffer("fold_EC", functional.one_hot(published, len(PUBLISHED)).float(), persistent=False)
        place_EH = functional.one_hot(torch.tensor(emotions), len(heads)).float()
        self.register_buffer("place_EH", place_EH, persistent=False)
        order = torch.tensor([self.words_heads.index(name) for name in PUBLISHED])
        self.register_buffer("order_C", order, persistent=False)
        width, classes = config.width, len(PUBLISHED)
        self.voice_enter = nn.Linear(len(heads), config.tokens * width)
        self.words_enter = nn.Linear(classes + vector, config.tokens * width)
        self.voice_norm, self.words_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        make = (width, config.attention_heads, config.drop, False)
        self.voice_asks = nn.ModuleList([CrossLayer(*make) for _ in range(config.layers)])
        self.words_ask = nn.ModuleList([CrossLayer(*make) for _ in range(config.layers)])
        self.middle = nn.Sequential(nn.Linear(2 * width, config.hidden), nn.GELU(), nn.Dropout(config.drop))
        self.gates = nn.Linear(config.hidden, 2)
        self.evidence, self.direct = nn.Linear(config.hidden, classes), nn.Linear(classes, classes)
        self.mistrust = nn.Parameter(torch.zeros(()))
        with torch.no_grad():  # begins as the plain sum of both
            for linear in (self.gates, self.evidence):
                linear.weight.zero_()
                linear.bias.zero_()
            self.direct.weight.copy_(torch.eye(classes))
            self.direct.bias.zero_()

    def forward(
        self, voice_BH: Tensor, words_BC: Tensor, vector_BX: Tensor, words_there_B: Tensor, suspect_B: Tensor
    ) -> Told:
        """Logits of either side (calibrated; log-probabilities are such, too), and 1 or 0 for each row: whether there is a
        transcript, and whether it is mistrusted. What words say where there are none has no part in anything."""
        there_B1 = (words_there_B > 0.5).float()[:, None]
        words_BC = torch.where(there_B1 > 0.5, words_BC, 0.0).index_select(1, self.order_C)
        vector_BX = torch.where(there_B1 > 0.5, vector_BX, 0.0)
        own_BE = voice_BH.index_select(1, self.emotion_E).log_softmax(1)
        voice_BC, said_BC = _blunt(own_BE.exp() @ self.fold_EC), _blunt(words_BC.softmax(1))
        middle_BF = self._asked(_blunt(voice_BH.softmax(1)), torch.cat((said_BC, vector_BX), 1))
        gate_B2 = self.gates(middle_BF)
        mistrust_B = functional.softplus(self.mistrust) * suspect_B * self.config.limit
        gate_voice_B1 = 2.0 * torch.sigmoid(gate_B2[:, :1])
        gate_words_B1 = 2.0 * torch.sigmoid(gate_B2[:, 1:] - mistrust_B[:, None])
        limit = self.config.limit
        evidence_BC = limit * torch.tanh((self.direct(said_BC) + self.evidence(middle_BF)) / limit)
        by_voice_BC, by_words_BC = gate_voice_B1 * voice_BC, gate_words_B1 * evidence_BC
        shift_BC = by_voice_BC + by_words_BC - voice_BC
        fused_BE = (own_BE + shift_BC @ self.fold_EC.T).log_softmax(1)
        # Added to the voice's own logits, so that nothing of them changes where there are no words. Both of the log-softmaxes
        # sum to one, so the share of `none` stays.
        logits_BH = voice_BH + there_B1 * ((fused_BE - own_BE) @ self.place_EH)
        spread_B2 = torch.cat((_spread(by_voice_BC), there_B1 * _spread(by_words_BC)), 1) + 1e-6
        share_B1 = there_B1 * spread_B2[:, 1:] / spread_B2.sum(1, keepdim=True)
        return Told(logits_BH, torch.cat((1.0 - share_B1, share_B1), 1))

    def _asked(self, voice_BH: Tensor, words_BX: Tensor) -> Tensor:
        """[B, F]: what comes of either side's having heard the other."""
        shape = (-1, self.config.tokens, self.config.width)
        voice_BND = self.voice_norm(self.voice_enter(voice_BH).reshape(shape))
        words_BND = self.words_norm(self.words_enter(words_BX).reshape(shape))
        for voice_asks, words_ask in zip(self.voice_asks, self.words_ask, strict=True):
            to_voice_BND, to_words_BND = voice_asks(voice_BND, words_BND), words_ask(words_BND, voice_BND)
            voice_BND, words_BND = voice_BND + to_voice_BND, words_BND + to_words_BND
        middle_BF: Tensor = self.middle(torch.cat((voice_BND.mean(1), words_BND.mean(1)), 1))
        return middle_BF


def _blunt(probability_BC: Tensor) -> Tensor:
    """Log-probabilities about their own mean, none of them far out."""
    log_BC = (probability_BC + LEAST).log()
    return log_BC - log_BC.mean(1, keepdim=True)


def _spread(log_BC: Tensor) -> Tensor:
    """[B, 1]: the classes' standard deviation."""
    return (log_BC - log_BC.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt()
