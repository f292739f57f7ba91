"""Transformer encoders: one that sees the whole sequence, and one that hears no further than now and streams exactly.

Letters: B rows, T steps, D channels, L layers, R steps of the past within reach, S steps that may be looked at (R + T).
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from clser.models.layers.attention import Attention, FeedForward
from clser.models.tensors import after, real

LONGEST_WAVE = 10_000.0  # steps to a radian in the slowest position wave, nearly
BLOCK = 256  # how many steps ask at once in the causal form: bounds memory, changes no number


class TransformerState(NamedTuple):
    """What the causal form remembers. Zeros: nothing heard yet."""

    seen_B1: Tensor
    """How many steps went by, as a float: exact for a week at 25 steps a second."""
    key_BLRD: Tensor
    value_BLRD: Tensor


def sinusoids(step_BT: Tensor, width: int) -> Tensor:
    """[B, T, D]: sines and cosines by turns (Vaswani et al. 2017, section 3.5), for steps however late."""
    pairs = torch.arange((width + 1) // 2, device=step_BT.device, dtype=torch.float32)
    angle_BTC = step_BT[..., None] * torch.exp(pairs * (-2.0 * math.log(LONGEST_WAVE) / width))
    return torch.stack((torch.sin(angle_BTC), torch.cos(angle_BTC)), -1).flatten(-2)[..., :width]


class EncoderLayer(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Self-attention and a feed-forward part, each with residual and norm (after it, or with `pre` before)."""

    def __init__(self, width: int, heads: int, hidden: int, *, drop: float, pre: bool, activation: str) -> None:
        super().__init__()
        self.pre = pre
        self.attention = Attention(width, heads, drop)
        self.feed_forward = FeedForward(width, hidden, activation, drop)
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(drop)

    def entry(self, x_BTD: Tensor) -> Tensor:
        """What queries, keys and values are made of."""
        return self.attention_norm(x_BTD) if self.pre else x_BTD

    def leave(self, x_BTD: Tensor, heard_BTD: Tensor) -> Tensor:
        """The layer's result, from its input and what the attention gave."""
        x_BTD = x_BTD + self.drop(heard_BTD)
        if self.pre:
            return x_BTD + self.drop(self.feed_forward(self.feed_norm(x_BTD)))
        x_BTD = self.attention_norm(x_BTD)
        return self.feed_norm(x_BTD + self.drop(self.feed_forward(x_BTD)))


class Transformer(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_BTD and each row's length -> as many steps. What comes out at padding is zero.

    `full`: every step sees every real one; there is no answer before the end, and the state is empty.
    `causal`: each layer's steps see themselves and the `reach` steps before, streamed or whole: the state holds their keys
    and values. L layers hear L * reach steps back.
    """

    def __init__(
        self, width: int, layers: int, heads: int, hidden: int, *, mode: Literal["full", "causal"] = "full",
        reach: int = 64, norm: Literal["pre", "post"] = "pre", activation: str = "gelu", drop: float = 0.1,
        positions: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        assert mode in ("full", "causal")
        assert norm in ("pre", "post")
        assert reach > 0, "a step that sees only itself needs no attention"
        self.width, self.reach, self.positions = width, reach, positions
        self.streams = "live" if mode == "causal" else "end"
        pre = norm == "pre"
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads, hidden, drop=drop, pre=pre, activation=activation) for _ in range(layers)
        )
        self.last_norm = nn.LayerNorm(width) if pre else nn.Identity()
        self.drop = nn.Dropout(drop)

    def start(self, rows: int) -> TransformerState | tuple[()]:
        """The state before the first step."""
        if self.streams == "end":
            return ()
        zeros = self.layers[0].feed_norm.weight.new_zeros
        cache = (rows, len(self.layers), self.reach, self.width)
        return TransformerState(zeros(rows, 1), zeros(cache), zeros(cache))

    def forward(
        self, x_BTD: Tensor, length_B: Tensor, state: TransformerState | tuple[()] = ()
    ) -> tuple[Tensor, TransformerState | tuple[()]]:
        """The steps, and the state after each row's own `length_B` of them."""
        real_BT1 = real(length_B, x_BTD.shape[1])[..., None]
        x_BTD = x_BTD.masked_fill(~real_BT1, 0.0)
        next_: TransformerState | tuple[()] = ()
        if isinstance(state, TransformerState):
            y_BTD, next_ = self._causal(x_BTD, length_B, state)
        else:
            assert self.streams == "end", "the causal form needs the state that `start` gave"
            y_BTD = self._full(x_BTD, real_BT1)
        return self.last_norm(y_BTD).masked_fill(~real_BT1, 0.0), next_

    def _full(self, x_BTD: Tensor, real_BT1: Tensor) -> Tensor:
        x_BTD = self._placed(x_BTD, x_BTD.new_zeros(1, 1))
        for layer in self.layers:
            entry_BTD = layer.entry(x_BTD)
            x_BTD = layer.leave(x_BTD, layer.attention(entry_BTD, entry_BTD, real_BT1.transpose(1, 2)))
        return x_BTD

    def _causal(self, x_BTD: Tensor, length_B: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        x_BTD = self._placed(x_BTD, state.seen_B1)
        keys, values = [], []
        for n, layer in enumerate(self.layers):
            entry_BTD = layer.entry(x_BTD)
            key_BTD, value_BTD = layer.attention.key(entry_BTD), layer.attention.value(entry_BTD)
            key_BRD, value_BRD = state.key_BLRD[:, n], state.value_BLRD[:, n]
            keys.append(after(key_BRD, key_BTD, length_B))
            values.append(after(value_BRD, value_BTD, length_B))
            past = torch.cat((key_BRD, key_BTD), 1), torch.cat((value_BRD, value_BTD), 1), state.seen_B1
            x_BTD = layer.leave(x_BTD, self._look_back(layer.attention, entry_BTD, *past))
        seen_B1 = state.seen_B1 + length_B[:, None].to(state.seen_B1.dtype)
        return x_BTD, TransformerState(seen_B1, torch.stack(keys, 1), torch.stack(values, 1))

    def _look_back(
        self, attention: Attention, x_BTD: Tensor, key_BSD: Tensor, value_BSD: Tensor, seen_B1: Tensor
    ) -> Tensor:
        """Each step sees itself, which stands `reach` places on among the keys, and the `reach` before."""
        if torch.jit.is_tracing():  # a loop over blocks would fix T in the graph; live, T is small
            return attention.read(x_BTD, key_BSD, value_BSD, self._band(x_BTD.shape[1], 0, seen_B1))
        parts = []
        for first in range(0, x_BTD.shape[1], BLOCK):
            x_BtD = x_BTD[:, first : first + BLOCK]
            steps = x_BtD.shape[1]
            allowed_Bts = self._band(steps, first, seen_B1)
            look = slice(first, first + steps + self.reach)
            parts.append(attention.read(x_BtD, key_BSD[:, look], value_BSD[:, look], allowed_Bts))
        return torch.cat(parts, 1)

    def _band(self, steps: int, first: int, seen_B1: Tensor) -> Tensor:
        ask_T1 = torch.arange(steps, device=seen_B1.device)[:, None]
        look_1S = torch.arange(steps + self.reach, device=seen_B1.device)[None]
        band_TS = (look_1S >= ask_T1) & (look_1S <= ask_T1 + self.reach)
        there_BS = look_1S + (first - self.reach) + seen_B1 >= 0  # nothing came before the first step
        return band_TS[None] & there_BS[:, None]

    def _placed(self, x_BTD: Tensor, seen_B1: Tensor) -> Tensor:
        if self.positions:
            step_BT = seen_B1 + torch.arange(x_BTD.shape[1], device=x_BTD.device)
            x_BTD = x_BTD + sinusoids(step_BT, self.width).to(x_BTD.dtype)
        return self.drop(x_BTD)
