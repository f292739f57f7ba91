"""Attentive statistics pooling that grows with the sound: the answer after any frame is read off running sums.

Letters: B rows, T frames, D channels, Q queries.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from typing import NamedTuple

import torch
from torch import Tensor, nn

from clser.models.tensors import at_end, picked, real

LOUDEST = 6.0  # a score lies within +-LOUDEST: sums of its exponential stay exact in float32 for hours
SMALLEST_VARIANCE = 1e-3


class PoolingState(NamedTuple):
    """Sums over the frames so far. Zeros: no frame yet."""

    weight_BQ: Tensor
    first_BQD: Tensor
    second_BQD: Tensor


class AttentivePooling(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_BTD and the sums so far -> the sums after each frame; sums -> [B, T, 2QD]: each query's means, then deviations.

    Okabe et al. 2018, eq. 5 and 6, with the softmax's sums kept apart so that they can be carried.
    """

    def __init__(self, channels: int, queries: int) -> None:
        super().__init__()
        self.channels, self.queries, self.width = channels, queries, 2 * queries * channels
        self.score = nn.Linear(channels, queries)

    def start(self, rows: int) -> PoolingState:
        """The sums before the first frame."""
        zeros = self.score.weight.new_zeros
        sums = (rows, self.queries, self.channels)
        return PoolingState(zeros(rows, self.queries), zeros(sums), zeros(sums))

    def forward(self, x_BTD: Tensor, length_B: Tensor, state: PoolingState) -> tuple[Tensor, PoolingState]:
        """What `read` gives after each step, zeros at padding, and the sums after each row's own `length_B` steps."""
        real_BT1 = real(length_B, x_BTD.shape[1])[..., None]
        sums = self.sums(x_BTD.masked_fill(~real_BT1, 0.0), state)
        return self.read(sums).masked_fill(~real_BT1, 0.0), sums_after(sums, length_B, state)

    def sums(self, x_BTD: Tensor, state: PoolingState) -> PoolingState:
        """The running sums after every frame, each [B, T, ...]."""
        weight_BTQ = torch.exp(LOUDEST * torch.tanh(self.score(x_BTD) / LOUDEST))
        first_BTQD = weight_BTQ[..., None] * x_BTD[:, :, None]
        second_BTQD = first_BTQD * x_BTD[:, :, None]
        return PoolingState(
            state.weight_BQ[:, None] + weight_BTQ.cumsum(1),
            state.first_BQD[:, None] + first_BTQD.cumsum(1),
            state.second_BQD[:, None] + second_BTQD.cumsum(1),
        )

    def read(self, sums: PoolingState) -> Tensor:
        """[B, T, 2QD] from the sums [B, T, ...] after some frames."""
        weight = sums.weight_BQ[..., None]
        mean = sums.first_BQD / weight
        variance = (sums.second_BQD / weight - mean.square()).clamp_min(0.0)
        both = torch.cat((mean, torch.sqrt(variance + SMALLEST_VARIANCE)), -1)
        return both.reshape(weight.shape[0], -1, 2 * self.queries * self.channels)


def sums_at(sums: PoolingState, at_BK: Tensor | None) -> PoolingState:
    """The sums [B, K, ...] after the frames asked for; all of them for None."""
    return sums if at_BK is None else PoolingState(*(picked(sum_, at_BK) for sum_ in sums))


def sums_after(sums: PoolingState, length_B: Tensor, before: PoolingState) -> PoolingState:
    """The sums after each row's own frames. None reaches back in time: what padding added to later ones is left behind."""
    return PoolingState(*(at_end(old, new, length_B) for old, new in zip(before, sums, strict=True)))
