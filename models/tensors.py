"""What layers, encoders and systems hand to one another.

Letters: B rows, T steps, K steps picked, D channels, X any number of axes.

Streaming state is an argument and a result: a NamedTuple of tensors [B, ...] (or of such tuples), zeros at the start.
`length_B` says how many of the T steps are real in each row; padding touches no state.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Sequences(NamedTuple):
    """Rows of unequal length, padded. A length of 0: this row has none of it."""

    x_BTD: Tensor
    length_B: Tensor


class Streaming(Protocol):
    """A layer or an encoder that sound passes through bit by bit; a whole recording is one long bit."""

    def start(self, rows: int) -> Any:
        """The state before the first step."""

    def __call__(self, x_BTD: Tensor, length_B: Tensor, state: Any) -> tuple[Tensor, Any]:
        """What comes out after each step, and the state after each row's own `length_B` steps."""


def leaves(state: Any) -> Iterator[Tensor]:
    """The tensors of a state, in the order of its fields."""
    if isinstance(state, Tensor):
        yield state
    else:
        for part in state:
            yield from leaves(part)


def like(state: Any, flat: Iterator[Tensor]) -> Any:
    """A state of the same make, from the tensors that `leaves` gave."""
    if isinstance(state, Tensor):
        return next(flat)
    parts = [like(part, flat) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def names(state: Any, prefix: str = "") -> Iterator[str]:
    """A name for each tensor of a state, in the order of `leaves`: the fields on the way to it."""
    if isinstance(state, Tensor):
        yield prefix
        return
    fields = state._fields if hasattr(state, "_fields") else [str(n) for n in range(len(state))]
    for field, part in zip(fields, state, strict=True):
        yield from names(part, f"{prefix}_{field}" if prefix else field)


def real(length_B: Tensor, steps: int) -> Tensor:
    """[B, T] of booleans: which steps are no padding."""
    return torch.arange(steps, device=length_B.device)[None] < length_B[:, None]


def picked(x_BTX: Tensor, at_BK: Tensor) -> Tensor:
    """[B, K, ...]: each row at its own steps."""
    return x_BTX[torch.arange(at_BK.shape[0], device=at_BK.device)[:, None], at_BK]


def at_end(start_BX: Tensor, x_BTX: Tensor, length_B: Tensor) -> Tensor:
    """[B, ...]: what stands after each row's own steps; `start_BX` where it has none."""
    return from_step(torch.cat((start_BX[:, None], x_BTX), 1), 1, length_B)[:, 0]


def after(history_BKD: Tensor, x_BTD: Tensor, length_B: Tensor) -> Tensor:
    """The last K steps of history and x together, counted back from each row's own end: [B, K, D]."""
    return from_step(torch.cat((history_BKD, x_BTD), 1), history_BKD.shape[1], length_B)


def from_step(x_BTX: Tensor, count: int, first_B: Tensor) -> Tensor:
    """[B, count, ...]: so many steps of each row, from its own first one on."""
    # Whole steps picked from all rows laid end to end: a runtime copies those at once, and `gather` number by number.
    begin_B = torch.arange(x_BTX.shape[0], device=first_B.device) * x_BTX.shape[1] + first_B
    at_BK = begin_B[:, None] + torch.arange(count, device=first_B.device)
    return x_BTX.flatten(0, 1).index_select(0, at_BK.flatten()).reshape(-1, count, *x_BTX.shape[2:])
