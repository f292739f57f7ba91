"""Plain means over real steps, at the end or after every few, and the z-scores of what goes into a system.

Letters: B rows, S steps, T frames of `every` steps, D channels, N steps of many rows.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from typing import NamedTuple

import torch
from torch import Tensor, nn

from clser.models.tensors import Sequences, real

SMALLEST_DEVIATION = 1e-3


class MeanState(NamedTuple):
    """The sum so far. Zeros: no step yet."""

    count_B1: Tensor
    sum_BD: Tensor


def mean_start(like_D: Tensor, rows: int, width: int) -> MeanState:
    """Before the first step, on the device of `like_D`."""
    return MeanState(like_D.new_zeros(rows, 1), like_D.new_zeros(rows, width))


def mean(x_BSD: Tensor, length_B: Tensor) -> Tensor:
    """[B, D]: over each row's own steps; zeros where it has none."""
    x_BSD = x_BSD.float().masked_fill(~real(length_B, x_BSD.shape[1])[..., None], 0.0)
    return x_BSD.sum(1) / length_B.clamp_min(1)[:, None]


def running_mean(x_BSD: Tensor, length_B: Tensor, state: MeanState, every: int = 1) -> tuple[Tensor, Tensor, MeanState]:
    """After each frame of `every` steps (which divides S): the mean of all steps so far and how many there were, [B, T, ...].

    Zeros where there was none. The state is that after each row's own steps.
    """
    real_BS1 = real(length_B, x_BSD.shape[1])[..., None]
    x_BSD = x_BSD.float().masked_fill(~real_BS1, 0.0)  # a long sum in half precision stops growing
    sum_BTD, count_BT1 = _by_frame(x_BSD, every), _by_frame(real_BS1.to(x_BSD.dtype), every)
    sum_BTD = state.sum_BD[:, None] + sum_BTD.cumsum(1)
    count_BT1 = state.count_B1[:, None] + count_BT1.cumsum(1)
    # padding adds nothing, so the last sums are each row's own; before them, those of nothing given
    last = (torch.cat((was[:, None], now), 1)[:, -1] for was, now in zip(state, (count_BT1, sum_BTD), strict=True))
    after = MeanState(*last)
    return sum_BTD / count_BT1.clamp_min(1.0), count_BT1, after


def _by_frame(x_BSD: Tensor, every: int) -> Tensor:
    return x_BSD if every == 1 else x_BSD.reshape(x_BSD.shape[0], -1, every, x_BSD.shape[2]).sum(2)


class Standard(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_BTD less the mean of the training data, over its deviation. As it comes until `fit` was called."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("deviation_D", torch.ones(width))

    def fit(self, given: Sequences) -> None:
        """Takes mean and deviation over the real steps; without any, nothing changes."""
        x_ND = given.x_BTD[real(given.length_B, given.x_BTD.shape[1])].double()
        if len(x_ND) > 1:
            self.mean_D.copy_(x_ND.mean(0))
            self.deviation_D.copy_(x_ND.std(0).clamp_min(SMALLEST_DEVIATION))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The same shape."""
        return (x_BTD - self.mean_D) / self.deviation_D
