"""The long short-term memory of old (Hochreiter and Schmidhuber 1997; with forget gates, Gers et al. 2000), state in the open.

Letters: B rows, T steps, D channels, L layers.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.layers.averages import mean
from clser.models.tensors import after, at_end, real

Pooling = Literal["last", "mean"]
"""What is said of a whole sequence: what its last step says, or the mean of all."""


class LstmState(NamedTuple):
    """What each layer says and what it keeps. Zeros: nothing heard yet."""

    hidden_BLD: Tensor
    cell_BLD: Tensor


class Lstm(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Layers of LSTM. What comes out at padding is zero.

    One that is `bidirectional` reads each row backwards too, from the row's own end: nothing is known before the end
    (`streams` is "end"), the state is empty, and there are twice `hidden` channels.
    """

    def __init__(
        self, width: int, hidden: int, layers: int = 1, *, bidirectional: bool = False, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.streams = "end" if bidirectional else "live"
        self.hidden, self.width = hidden, 2 * hidden if bidirectional else hidden
        widths = [width] + [self.width] * (layers - 1)
        self.there = nn.ModuleList(nn.LSTM(width, hidden, batch_first=True) for width in widths)
        self.back = nn.ModuleList(nn.LSTM(width, hidden, batch_first=True) for width in widths if bidirectional)
        self.drop = nn.Dropout(drop)

    def start(self, rows: int) -> LstmState | tuple[()]:
        """The state before the first step."""
        if self.streams == "end":
            return ()
        zeros = self.there[0].weight_hh_l0.new_zeros
        return LstmState(*(zeros(rows, len(self.there), self.hidden) for _ in LstmState._fields))

    def forward(
        self, x_BTD: Tensor, length_B: Tensor, state: LstmState | tuple[()] = (), *, carry: bool = True
    ) -> tuple[Tensor, LstmState | tuple[()]]:
        """The last layer's answer after each step, and the state after each row's own `length_B` steps.

        carry: False where nobody will go on from here, as in training: the state is not worth its work, and comes back as
        it was given.
        """
        padding_BT1 = ~real(length_B, x_BTD.shape[1])[..., None]
        x_BTD = x_BTD.masked_fill(padding_BT1, 0.0)
        next_: LstmState | tuple[()] = ()
        if isinstance(state, LstmState):
            x_BTD, next_ = self._live(x_BTD, length_B, state, carry)
        else:
            assert self.streams == "end", "one that streams needs the state that `start` gave"
            x_BTD = self._both_ways(x_BTD, length_B)
        return x_BTD.masked_fill(padding_BT1, 0.0), next_

    def _live(self, x_BTD: Tensor, length_B: Tensor, state: LstmState, carry: bool) -> tuple[Tensor, LstmState]:
        hidden, cells = [], []
        for n, lstm in enumerate(self.there):
            x_BTD = self.drop(x_BTD) if n else x_BTD
            hidden_BD, cell_BD = state.hidden_BLD[:, n], state.cell_BLD[:, n]
            y_BTD, _ = lstm(x_BTD, (hidden_BD[None].contiguous(), cell_BD[None].contiguous()))
            if not carry:
                x_BTD = y_BTD
                continue
            hidden.append(after(hidden_BD[:, None], y_BTD, length_B))
            cells.append(
                _cell(lstm, x_BTD, torch.cat((hidden_BD[:, None], y_BTD[:, :-1]), 1), length_B, cell_BD)[:, None]
            )
            x_BTD = y_BTD
        return x_BTD, LstmState(torch.cat(hidden, 1), torch.cat(cells, 1)) if carry else state

    def _both_ways(self, x_BTD: Tensor, length_B: Tensor) -> Tensor:
        step_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
        turned_BT = torch.where(step_T < length_B[:, None], length_B[:, None] - 1 - step_T, step_T)
        for n, (there, back) in enumerate(zip(self.there, self.back, strict=True)):
            x_BTD = self.drop(x_BTD) if n else x_BTD
            back_BTD, _ = back(_reorder(x_BTD, turned_BT))
            x_BTD = torch.cat((there(x_BTD)[0], _reorder(back_BTD, turned_BT)), 2)
        return x_BTD


def _cell(lstm: nn.LSTM, x_BTD: Tensor, before_BTD: Tensor, length_B: Tensor, cell_BD: Tensor) -> Tensor:
    """What an LSTM keeps after each row's own steps; it tells only what it keeps after the padding too.

    Every answer is known, so all gates are; a cell is what was stored at each step times all that was kept since.
    (Packing the rows would tell too, but makes learning seven times slower on a processor.)
    """
    asked_BTF = functional.linear(x_BTD, lstm.weight_ih_l0, lstm.bias_ih_l0)
    asked_BTF = asked_BTF + functional.linear(before_BTD, lstm.weight_hh_l0, lstm.bias_hh_l0)
    let_in, forget, value, _ = asked_BTF.chunk(4, 2)
    padding_BT1 = ~real(length_B, x_BTD.shape[1])[..., None]
    stored_BTD = (torch.sigmoid(let_in) * torch.tanh(value)).masked_fill(padding_BT1, 0.0)
    log_keep_BTD = functional.logsigmoid(forget).masked_fill(padding_BT1, 0.0)
    # Summed from the end, so that the short sums, whose exponential counts, are exact.
    kept_BTD = log_keep_BTD.flip(1).cumsum(1).flip(1)
    since_BTD = torch.cat((kept_BTD[:, 1:], torch.zeros_like(kept_BTD[:, :1])), 1)
    return (torch.exp(since_BTD) * stored_BTD).sum(1) + torch.exp(kept_BTD[:, 0]) * cell_BD


def _reorder(x_BTD: Tensor, at_BT: Tensor) -> Tensor:
    return x_BTD.gather(1, at_BT[..., None].expand(-1, -1, x_BTD.shape[2]))


class Whole(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """An LSTM over all of a sequence, and what it says of it."""

    def __init__(self, width: int, hidden: int, pooling: Pooling) -> None:
        super().__init__()
        self.hidden, self.pooling = hidden, pooling
        self.lstm = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, x_BSD: Tensor, length_B: Tensor) -> Tensor:
        """[B, hidden]; zeros where a row has no step."""
        x_BSD = some_steps(x_BSD)
        zeros_BD = x_BSD.new_zeros(x_BSD.shape[0], self.hidden)  # given, or a traced graph fixes the number of rows
        y_BSD, _ = self.lstm(x_BSD, (zeros_BD[None], zeros_BD[None]))
        return mean(y_BSD, length_B) if self.pooling == "mean" else at_end(zeros_BD, y_BSD, length_B)


def some_steps(x_BSD: Tensor, least: int = 1) -> Tensor:
    """At least so many steps, for there must be something to point at; live there always are."""
    if torch.jit.is_tracing() or x_BSD.shape[1] >= least:
        return x_BSD
    return functional.pad(x_BSD, (0, 0, 0, least - x_BSD.shape[1]))
