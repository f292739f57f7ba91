"""Cross-attention both ways (CAT), and what stands before it in HuMP-CAT: layers weighed by attention, a strided convolution.

Letters: B rows, T steps, S steps of another sequence, U steps after the convolution, K layers, D channels of a layer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.layers.attention import CrossAttention
from clser.models.tensors import Sequences, from_step, real

KERNEL, STRIDE = (10, 18), (4, 3)
"""In steps and channels."""


class LayerAttention(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """K layers side by side [B, T, K*D] -> one [B, T, D]: in each step, each layer's share is a softmax over their scores."""

    def __init__(self, layers: int, width: int, hidden: int) -> None:
        super().__init__()
        self.layers, self.width = layers, width
        self.key, self.score = nn.Linear(width, hidden), nn.Linear(hidden, 1, bias=False)

    def forward(self, x_BTX: Tensor) -> Tensor:
        x_BTKD = x_BTX.reshape(*x_BTX.shape[:2], self.layers, self.width)
        share_BTK1 = self.score(torch.tanh(self.key(x_BTKD))).softmax(2)
        return (share_BTK1 * x_BTKD).sum(2)


class StridedConv(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Steps and channels as a picture of one colour, through one kernel: 349 x 768 to 85 x 251."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, KERNEL, STRIDE)
        self.width = (channels - KERNEL[1]) // STRIDE[1] + 1

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, U, width]."""
        return torch.relu(self.conv(x_BTD[:, None]))[:, 0]


class Cat(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Two sequences ask one another; the answers of the first, then those of the second, as one sequence.

    Of either a row has all steps or none. One that asks somebody who is not there stays as it is.
    """

    def __init__(self, width: int, heads: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.there = CrossAttention(width, heads, hidden, drop=drop)
        self.back = CrossAttention(width, heads, hidden, drop=drop)

    def forward(self, one: Sequences, other: Sequences) -> Sequences:
        """As long as both together."""
        return joined(self.there(one, other), self.back(other, one))


def joined(one: Sequences, other: Sequences) -> Sequences:
    """End to end, without a gap where a row lacks the first. Of that it has all steps or none."""
    steps = one.x_BTD.shape[1] + other.x_BTD.shape[1]
    both_BTD = torch.cat((one.x_BTD, other.x_BTD), 1)
    both_BTD = functional.pad(both_BTD, (0, 0, 0, one.x_BTD.shape[1]))
    first_B = torch.where(one.length_B > 0, 0, one.x_BTD.shape[1])
    return Sequences(from_step(both_BTD, steps, first_B), one.length_B + other.length_B)


def repeated(given: Sequences, steps: int) -> Sequences:
    """Each row's own steps from the first on, again and again until there are `steps`; longer rows are cut, none stays none."""
    x_BTD = functional.pad(given.x_BTD, (0, 0, 0, 1))  # so that there is a step
    at_1T = torch.arange(steps, device=x_BTD.device)[None]
    at_BT = torch.remainder(at_1T, given.length_B.clamp_min(1)[:, None])
    row_B1 = torch.arange(x_BTD.shape[0], device=x_BTD.device)[:, None] * x_BTD.shape[1]
    long_BTD = x_BTD.flatten(0, 1).index_select(0, (row_B1 + at_BT).flatten()).reshape(-1, steps, x_BTD.shape[2])
    return Sequences(long_BTD, torch.where(given.length_B > 0, steps, 0))


def mean_and_variance(given: Sequences) -> Tensor:
    """[B, 2D]: over each row's own steps; zeros where it has none."""
    there_BT1 = real(given.length_B, given.x_BTD.shape[1])[..., None].to(given.x_BTD.dtype)
    count_B1 = given.length_B.clamp_min(1)[:, None]
    mean_BD = (given.x_BTD * there_BT1).sum(1) / count_B1
    away_BTD = (given.x_BTD - mean_BD[:, None]) * there_BT1
    return torch.cat((mean_BD, away_BTD.square().sum(1) / count_B1), 1)
