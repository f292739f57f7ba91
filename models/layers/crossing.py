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


def projection(width: int, leave: int, drop: float = 0.0) -> nn.Sequential:
    """A linear layer and a norm, as the family has them everywhere."""
    linear = nn.Linear(width, leave)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, nn.LayerNorm(leave), nn.Dropout(drop))


def answer(pooled: int, hidden: int, heads: int, drop: float) -> nn.Sequential:
    """The family's last layers."""
    layers = nn.Sequential(
        nn.Linear(pooled, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(drop), nn.Linear(hidden, heads)
    )
    for linear in (layers[0], layers[-1]):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
    return layers


class Entering(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Voice [B, S, ...] and words [B, S', ...] to J steps of `width` each. What a row lacks is a learnt vector.

    A modality is projected where its width is another, or `always`; normed in any case.
    """

    def __init__(
        self, voice_width: int, words_width: int, width: int, *, steps: int, drop: float, always: bool = False
    ) -> None:
        super().__init__()
        self.steps = steps
        self.voice, self.words = (
            projection(given, width, drop)
            if always or given != width
            else nn.Sequential(nn.LayerNorm(width), nn.Dropout(drop))
            for given in (voice_width, words_width)
        )
        # Ours: the paper's rows always have both.
        self.missing_voice_D = nn.Parameter(torch.randn(width) * 0.02)
        self.missing_words_D = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, voice: Sequences, words: Sequences | None) -> tuple[Tensor, Tensor]:
        """Two times [B, J, D]. No `words` at all: every row lacks them."""
        voice_BJD = self._entered(voice, self.voice, self.missing_voice_D)
        if words is None:
            return voice_BJD, self.missing_words_D.expand_as(voice_BJD)
        return voice_BJD, self._entered(words, self.words, self.missing_words_D)

    def _entered(self, given: Sequences, enter: nn.Module, missing_D: Tensor) -> Tensor:
        x_BJD = stretched(Sequences(enter(given.x_BTD), given.length_B), self.steps)
        return torch.where((given.length_B > 0)[:, None, None], x_BJD, missing_D)


class Across(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Layers in which each sequence asks the other, both from the same inputs, beside a straight way."""

    def __init__(self, width: int, layers: int, heads: int, drop: float, as_released: bool) -> None:
        super().__init__()
        make = (width, heads, drop, as_released)
        self.voice_asks = nn.ModuleList([CrossLayer(*make) for _ in range(layers)])
        self.words_ask = nn.ModuleList([CrossLayer(*make) for _ in range(layers)])

    def forward(self, voice_BJD: Tensor, words_BJD: Tensor) -> tuple[Tensor, Tensor]:
        """Both, as long and as wide."""
        for voice_asks, words_ask in zip(self.voice_asks, self.words_ask, strict=True):
            to_voice_BJD, to_words_BJD = voice_asks(voice_BJD, words_BJD), words_ask(words_BJD, voice_BJD)
            voice_BJD, words_BJD = voice_BJD + to_voice_BJD, words_BJD + to_words_BJD
        return voice_BJD, words_BJD


class Crossing(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """BiFormer: layers across, then the means over time and over features of both to logits."""

    def __init__(
        self, voice_width: int, words_width: int, width: int, heads: int, *, steps: int = 95, layers: int = 5,
        attention_heads: int = 8, hidden: int = 256, drop: float = 0.15, as_released: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.enter = Entering(voice_width, words_width, width, steps=steps, drop=drop)
        self.across = Across(width, layers, attention_heads, drop, as_released)
        self.answer = answer(2 * (width + steps), hidden, heads, drop)

    def forward(self, voice: Sequences, words: Sequences | None) -> Tensor:
        """[B, H]. No `words` at all: every row lacks them."""
        both = self.across(*self.enter(voice, words))
        # means over time and over features: 256 + 95 numbers of each
        return self.answer(torch.cat([x_BJD.mean(axis) for x_BJD in both for axis in (1, 2)], 1))
