"""Mamba layers: a selective state space between two gates, streaming as it was trained.

Letters: B rows, T steps, O outer channels, D inner channels, N numbers of state a channel, H heads, K steps of the kernel.

`Mamba` is the first (Gu and Dao 2023), with the parameters that the cross-lingual family's text encoder has.
`MambaDual` is the second (Dao and Gu 2024): one decay a head, far cheaper without a GPU; our own encoders use it.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.layers.convolution import CausalConv
from clser.models.layers.scan import Steps, dual, scan
from clser.models.tensors import real


class MambaState(NamedTuple):
    """What is left of the steps so far."""

    recent_BKD: Tensor
    """The last steps, which the convolution still reaches back to."""
    state_BDN: Tensor


class RmsNorm(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A step over the root of its mean square, times a learnt scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_D = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The same shape."""
        return over_rms(x_BTD, 1e-5) * self.scale_D


def over_rms(x_BTD: Tensor, floor: float) -> Tensor:
    """A step over the root of its mean square (Zhang and Sennrich 2019, eq. 4)."""
    return x_BTD * torch.rsqrt(x_BTD.square().mean(-1, keepdim=True) + floor)


class Mamba(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_BTO -> y_BTO by a state space whose step, input and output depend on x.

    A step keeps exp(delta A) of the state, as in the paper. The official code of the cross-lingual family keeps
    exp(A) delta instead, which `released` does too. As there, D serves twice: as the skip, and as the bias of delta.
    """

    def __init__(
        self, outer: int, inner: int, numbers: int = 16, rank: int | None = None, released: bool = False
    ) -> None:
        super().__init__()
        rank = rank or inner // 16
        self.inner, self.released = inner, released
        self.enter = nn.Linear(outer, 2 * inner, bias=False)
        self.conv = CausalConv(inner)
        self.to_in = nn.Linear(inner, numbers, bias=False)
        self.to_out = nn.Linear(inner, numbers, bias=False)
        self.to_delta = nn.Sequential(nn.Linear(inner, rank, bias=False), nn.Linear(rank, inner, bias=False))
        self.decay_DN = nn.Parameter(torch.arange(1, numbers + 1).float().repeat(inner, 1))
        self.skip_D = nn.Parameter(torch.ones(inner))
        self.leave = nn.Linear(inner, outer, bias=False)

    def start(self, rows: int) -> MambaState:
        """Nothing was heard."""
        return MambaState(self.conv.start(rows), self.skip_D.new_zeros(rows, *self.decay_DN.shape))

    def forward(self, x_BTO: Tensor, length_B: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        x_BTD, gate_BTD = self.enter(x_BTO).chunk(2, -1)
        x_BTD, recent_BKD = self.conv(x_BTD, length_B, state.recent_BKD)
        x_BTD = functional.silu(x_BTD)
        real_BT1 = real(length_B, x_BTO.shape[1])[..., None]
        delta_BTD = functional.softplus(self.skip_D + self.to_delta(x_BTD))
        run = self._released if self.released else self._scan
        y_BTD, state_BDN = run(x_BTD, delta_BTD, real_BT1, state.state_BDN)
        return self.leave((y_BTD + self.skip_D * x_BTD) * functional.silu(gate_BTD)), MambaState(recent_BKD, state_BDN)

    def _scan(self, x_BTD: Tensor, delta_BTD: Tensor, real_BT1: Tensor, state_BDN: Tensor) -> tuple[Tensor, Tensor]:
        # the decay must stay below zero, or the state grows without end
        decay_DN = -self.decay_DN.abs()
        steps = Steps(x_BTD, delta_BTD * real_BT1, self.to_in(x_BTD), self.to_out(x_BTD))
        return scan(steps, decay_DN, state_BDN)

    def _released(self, x_BTD: Tensor, delta_BTD: Tensor, real_BT1: Tensor, state_BDN: Tensor) -> tuple[Tensor, Tensor]:
        """h_t = exp(A) delta_t h_(t-1) + delta_t B_t x_t: no decay in the paper's sense, and it may grow."""
        in_BTN, out_BTN = self.to_in(x_BTD), self.to_out(x_BTD)
        rate_DN = torch.exp(-self.decay_DN)
        answers = []
        steps = (x_BTD, delta_BTD, in_BTN, out_BTN, real_BT1)
        for x_BD, delta_BD, in_BN, out_BN, real_B1 in zip(*(part.unbind(1) for part in steps), strict=True):
            delta_BD1 = delta_BD[..., None]
            next_BDN = rate_DN * delta_BD1 * state_BDN + delta_BD1 * x_BD[..., None] * in_BN[:, None]
            state_BDN = torch.where(real_B1[..., None], next_BDN, state_BDN)
            answers.append((next_BDN @ out_BN[..., None])[..., 0])
        return (torch.stack(answers, 1) if answers else x_BTD), state_BDN


class MambaDual(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_BTO -> y_BTO by heads of `width` channels that each forget at one rate (Dao and Gu 2024, fig. 6)."""

    def __init__(self, outer: int, expand: int = 2, numbers: int = 16, width: int = 32) -> None:
        super().__init__()
        self.inner, self.numbers, self.width = expand * outer, numbers, width
        self.heads = self.inner // width
        self.enter = nn.Linear(outer, 2 * self.inner + 2 * numbers + self.heads, bias=False)
        self.conv = CausalConv(self.inner + 2 * numbers)
        # Steps of 1 to 100 frames to begin with: delta from 0.01 to 1 at a decay of 1 to 4.
        delta_H = torch.exp(torch.linspace(-4.6, 0.0, self.heads))
        self.delta_bias_H = nn.Parameter(delta_H + torch.log(-torch.expm1(-delta_H)))
        self.log_decay_H = nn.Parameter(torch.log(1.0 + torch.arange(self.heads) % 4))
        self.skip_H = nn.Parameter(torch.ones(self.heads))
        self.norm_D = nn.Parameter(torch.ones(self.inner))
        self.leave = nn.Linear(self.inner, outer, bias=False)

    def start(self, rows: int) -> MambaState:
        """Nothing was heard."""
        state_BHPN = self.norm_D.new_zeros(rows, self.heads, self.width, self.numbers)
        return MambaState(self.conv.start(rows), state_BHPN)

    def forward(self, x_BTO: Tensor, length_B: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        sizes = (self.inner, self.inner + 2 * self.numbers, self.heads)
        gate_BTD, mixed_BTX, delta_BTH = self.enter(x_BTO).split(sizes, -1)
        mixed_BTX, recent_BKX = self.conv(mixed_BTX, length_B, state.recent_BKD)
        x_BTD, in_BTN, out_BTN = functional.silu(mixed_BTX).split((self.inner, self.numbers, self.numbers), -1)
        x_BTHP = x_BTD.reshape(x_BTD.shape[0], -1, self.heads, self.width)  # an exported unflatten would fix T
        delta_BTH = functional.softplus(delta_BTH + self.delta_bias_H) * real(length_B, x_BTO.shape[1])[..., None]
        steps = Steps(x_BTHP, delta_BTH, in_BTN, out_BTN)
        y_BTHP, state_BHPN = dual(steps, -torch.exp(self.log_decay_H), state.state_BDN)
        y_BTD = (y_BTHP + self.skip_H[:, None] * x_BTHP).flatten(2) * functional.silu(gate_BTD)
        return self.leave(over_rms(y_BTD, 1e-6) * self.norm_D), MambaState(recent_BKX, state_BHPN)


class MambaLayer(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A Mamba beside a straight way."""

    def __init__(self, width: int, expand: int, drop: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mamba = MambaDual(width, expand)
        self.drop = nn.Dropout(drop)

    def start(self, rows: int) -> MambaState:
        """Nothing was heard."""
        state: MambaState = self.mamba.start(rows)
        return state

    def forward(self, x_BTD: Tensor, length_B: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        y_BTD, state = self.mamba(self.norm(x_BTD), length_B, state)
        return x_BTD + self.drop(y_BTD), state


class MambaStack(nn.ModuleList):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Layers, each on what the one before it gave; our own encoders' middle."""

    def __init__(self, width: int, layers: int, expand: int, drop: float) -> None:
        super().__init__([MambaLayer(width, expand, drop) for _ in range(layers)])

    def start(self, rows: int) -> tuple[MambaState, ...]:
        """Nothing was heard."""
        return tuple(layer.start(rows) for layer in self)

    def forward(
        self, x_BTD: Tensor, length_B: Tensor, state: tuple[MambaState, ...]
    ) -> tuple[Tensor, tuple[MambaState, ...]]:
        after = []
        for layer, before in zip(self, state, strict=True):
            x_BTD, left = layer(x_BTD, length_B, before)
            after.append(left)
        return x_BTD, tuple(after)
