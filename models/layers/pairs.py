"""Vectors of several sources to one, in the ways that MPAF-Net and those it is measured against put them together.

Letters: N rows, K sources, P pairs, D numbers of a source, W of all together, H heads.

A missing source stands as zeros, whatever was given in its place; `present_NK` (booleans) says which are there.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from clser.models.layers.gating import PairGate


class SideBySide(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """[f_1; ..; f_K]."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.width = sum(widths)

    def forward(self, x_KND: Sequence[Tensor], present_NK: Tensor) -> Tensor:
        """[N, W]."""
        return torch.cat(_there(x_KND, present_NK), 1)


class Pairs(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """The sources side by side, and behind them what comes of each two of them (MPAF-Net)."""

    def __init__(self, widths: Sequence[int], width: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.of = tuple(combinations(range(len(widths)), 2))
        self.gates = nn.ModuleList(PairGate(widths[one], widths[two], width, hidden, drop) for one, two in self.of)
        self.width = sum(widths) + len(self.of) * width

    def forward(self, x_KND: Sequence[Tensor], present_NK: Tensor) -> Tensor:
        """[N, W]."""
        return torch.cat((*_there(x_KND, present_NK), *(pair for pair, _ in self._pairs(x_KND, present_NK))), 1)

    def shares(self, x_KND: Sequence[Tensor], present_NK: Tensor) -> Tensor:
        """[N, P]: how much of each pair is its first source."""
        return torch.cat([share for _, share in self._pairs(x_KND, present_NK)], 1)

    def _pairs(self, x_KND: Sequence[Tensor], present_NK: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [
            gate(x_KND[one], x_KND[two], torch.stack((present_NK[:, one], present_NK[:, two]), 1))
            for gate, (one, two) in zip(self.gates, self.of, strict=True)
        ]


class Products(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Every product of a number of each source, a one among them: [z_1; 1] x .. x [z_K; 1] (Zadeh et al. 2017, section 4.2).

    z = ReLU(W f), narrow, for the product of three is wide. Of a missing source its one alone is left, so the products of
    the others stay.
    """

    def __init__(self, widths: Sequence[int], narrow: int, drop: float) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Linear(width, narrow) for width in widths)
        self.drop = nn.Dropout(drop)
        self.width = (narrow + 1) ** len(widths)

    def forward(self, x_KND: Sequence[Tensor], present_NK: Tensor) -> Tensor:
        """[N, W]."""
        product_NW: Tensor | None = None
        for k, (enter, x_ND) in enumerate(zip(self.enter, _there(x_KND, present_NK), strict=True)):
            z_NZ = self.drop(torch.relu(enter(x_ND))).masked_fill(~present_NK[:, k, None], 0.0)
            z_NZ = torch.cat((z_NZ, torch.ones_like(z_NZ[:, :1])), 1)
            product_NW = z_NZ if product_NW is None else (product_NW[:, :, None] * z_NZ[:, None]).flatten(1)
        assert product_NW is not None
        return product_NW


def _there(x_KND: Sequence[Tensor], present_NK: Tensor) -> list[Tensor]:
    return [x_ND.masked_fill(~present_NK[:, k, None], 0.0) for k, x_ND in enumerate(x_KND)]
