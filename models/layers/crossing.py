"""BiFormer's fusion (BDCC 9(11):285): two sequences stretched to one length ask one another, layer by layer.

Letters: B rows, S steps given, J steps after stretching, D channels, X channels of the words, P pooled numbers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.layers.attention import Attention, FeedForward
from clser.models.layers.transformer import sinusoids
from clser.models.tensors import Sequences


def stretched(given: Sequences, steps: int) -> Tensor:
    """[B, J, D]: each row's own steps, linearly interpolated at J places, as far apart from the ends as from one another.

    Torch calls it `align_corners=False`; here padding has no part in it. A row without a step gives whatever stands there.
    """
    x_BSD = functional.pad(given.x_BTD, (0, 0, 0, 1))  # there is something to point at even where S is 0
    last_B1 = (given.length_B[:, None] - 1).clamp_min(0)
    j_J = torch.arange(steps, device=x_BSD.device).float()  # places need its precision where steps are kept in half
    place_BJ = ((j_J + 0.5) * (given.length_B[:, None].float() / steps) - 0.5).clamp_min(0.0)
    low_BJ = torch.minimum(place_BJ.floor().long(), last_B1)
    high_BJ = torch.minimum(low_BJ + 1, last_B1)
    share_BJ1 = (place_BJ - low_BJ)[..., None].to(x_BSD.dtype)
    return (1.0 - share_BJ1) * _at(x_BSD, low_BJ) + share_BJ1 * _at(x_BSD, high_BJ)


def _at(x_BSD: Tensor, at_BJ: Tensor) -> Tensor:
    return x_BSD.gather(1, at_BJ[..., None].expand(-1, -1, x_BSD.shape[2]))


class CrossLayer(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """One sequence asks the other: attention and a feed-forward part, a norm after each sum.

    Positions are added to all that enters, in every layer. `as_released` takes only the keys from the other sequence: the
    values are the asking one's own. There dropout falls on the straight way, too.
    """

    def __init__(self, width: int, heads: int, drop: float, as_released: bool) -> None:
        super().__init__()
        self.as_released = as_released
        self.attention = Attention(width, heads, drop)
        self.feed_forward = FeedForward(width, width, "gelu", drop)
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(drop)

    def forward(self, x_BJD: Tensor, other_BJD: Tensor) -> Tensor:
        position_1J = torch.arange(x_BJD.shape[1], device=x_BJD.device)[None].float()
        position_1JD = sinusoids(position_1J, x_BJD.shape[2])
        x_BJD, other_BJD = self.drop(x_BJD + position_1JD), self.drop(other_BJD + position_1JD)
        everywhere_111 = torch.ones(1, 1, 1, dtype=torch.bool, device=x_BJD.device)
        key_BJD = self.attention.key(other_BJD)
        value_BJD = self.attention.value(x_BJD if self.as_released else other_BJD)
        heard_BJD = self.attention.read(x_BJD, key_BJD, value_BJD, everywhere_111)
        if self.as_released:
            y_BJD = self.attention_norm(heard_BJD + self.drop(x_BJD))
            return self.feed_norm(self.feed_forward(y_BJD) + self.drop(y_BJD))
        y_BJD = self.attention_norm(x_BJD + self.drop(heard_BJD))
        return self.feed_norm(y_BJD + self.drop(self.feed_forward(y_BJD)))


class Crossing(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Voice [B, S, D] and words [B, S', X] to logits. A row that lacks one of them has a learnt vector in its place."""

    def __init__(
        self, width: int, words_width: int, heads: int, *, steps: int = 95, layers: int = 5, attention_heads: int = 8,
        hidden: int = 256, drop: float = 0.15, as_released: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.steps = steps
        self.voice_norm, self.words_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.words_enter = nn.Linear(words_width, width)
        make = (width, attention_heads, drop, as_released)
        self.voice_asks = nn.ModuleList([CrossLayer(*make) for _ in range(layers)])
        self.words_ask = nn.ModuleList([CrossLayer(*make) for _ in range(layers)])
        pooled = 2 * (width + steps)
        self.answer = nn.Sequential(
            nn.Linear(pooled, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(drop), nn.Linear(hidden, heads)
        )
        self.drop = nn.Dropout(drop)
        for linear in (self.words_enter, self.answer[0], self.answer[-1]):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        # Ours: the paper's rows always have both.
        self.missing_voice_D = nn.Parameter(torch.randn(width) * 0.02)
        self.missing_words_D = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, voice: Sequences, words: Sequences | None) -> Tensor:
        """[B, H]. No `words` at all: every row lacks them."""
        voice_BJD = self._entered(voice, self.voice_norm, self.missing_voice_D)
        if words is None:
            words_BJD = self.missing_words_D.expand_as(voice_BJD)
        else:
            projected = Sequences(self.words_enter(words.x_BTD), words.length_B)
            words_BJD = self._entered(projected, self.words_norm, self.missing_words_D)
        for voice_asks, words_ask in zip(self.voice_asks, self.words_ask, strict=True):
            # both from the same inputs
            to_voice_BJD, to_words_BJD = voice_asks(voice_BJD, words_BJD), words_ask(words_BJD, voice_BJD)
            voice_BJD, words_BJD = voice_BJD + to_voice_BJD, words_BJD + to_words_BJD
        # means over time and over features: 256 + 95 numbers of each
        pooled = [x_BJD.mean(axis) for x_BJD in (voice_BJD, words_BJD) for axis in (1, 2)]
        return self.answer(torch.cat(pooled, 1))

    def _entered(self, given: Sequences, norm: nn.LayerNorm, missing_D: Tensor) -> Tensor:
        x_BJD = stretched(Sequences(self.drop(norm(given.x_BTD)), given.length_B), self.steps)
        return torch.where((given.length_B > 0)[:, None, None], x_BJD, missing_D)
