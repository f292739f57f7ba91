"""The fusions of BiGraphFormer and BiGatedGraphFormer (BDCC 9(11):285): a voice and its words as the two nodes of a graph.

Letters: B rows, N nodes of a row, D channels of a node, H heads, E channels of a head, M a node that is looked at.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.layers.crossing import Across, Entering, answer, projection
from clser.models.layers.gating import FeatureGate
from clser.models.tensors import Sequences

SLOPE = 0.2  # of the leaky rectifier
SPREAD = 0.1  # of the scales that the norms begin with


class GraphAttention(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_BND -> [B, N, H * E]: each node hears itself and those it is joined to (Velickovic et al. 2018)."""

    def __init__(self, width: int, leave: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.enter = nn.Linear(width, heads * leave, bias=False)
        self.ask_HE = nn.Parameter(torch.empty(heads, leave))
        self.told_HE = nn.Parameter(torch.empty(heads, leave))
        self.bias_D = nn.Parameter(torch.zeros(heads * leave))
        for weight in (self.enter.weight, self.ask_HE, self.told_HE):
            nn.init.xavier_uniform_(weight)

    def forward(self, x_BND: Tensor, joined_BNM: Tensor) -> Tensor:
        """`joined_BNM` (booleans): which nodes a node hears; itself it always does."""
        rows, nodes, _ = x_BND.shape
        h_BNHE = self.enter(x_BND).reshape(rows, nodes, self.heads, -1)
        ask_BHN1 = (h_BNHE * self.ask_HE).sum(3).transpose(1, 2)[..., None]
        told_BH1M = (h_BNHE * self.told_HE).sum(3).transpose(1, 2)[:, :, None]
        score_BHNM = functional.leaky_relu(ask_BHN1 + told_BH1M, SLOPE)  # e_ij of eq. 3, a cut in two
        node_N = torch.arange(nodes, device=x_BND.device)
        heard_BNM = joined_BNM | (node_N[:, None] == node_N)
        score_BHNM = score_BHNM.masked_fill(~heard_BNM[:, None], torch.finfo(score_BHNM.dtype).min)
        y_BNHE = (score_BHNM.softmax(3) @ h_BNHE.transpose(1, 2)).transpose(1, 2)  # eq. 3 and 5
        return y_BNHE.flatten(2) + self.bias_D


class PairGraph(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Two vectors of a row to the two nodes of a graph, through two layers of attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.voice, self.words = projection(width, width), projection(width, width)
        self.first = GraphAttention(width, width, heads)
        self.second = GraphAttention(heads * width, width, 1)
        self.leave = projection(width, width)

    def forward(self, voice_BD: Tensor, words_BD: Tensor, joined_B: Tensor) -> Tensor:
        """[B, 2, D], before `leave`. `joined_B` (booleans): whether a row's nodes hear one another."""
        x_BND = torch.relu(torch.stack((self.voice(voice_BD), self.words(words_BD)), 1))
        joined_BNM = joined_B[:, None, None].expand(-1, 2, 2)
        return self.second(torch.relu(self.first(x_BND, joined_BNM)), joined_BNM)


class GraphCrossing(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """BiFormer's layers, then a graph of the means over time and one of the means over features; `gated`, gates on both.

    `as_released`: the official code numbers the nodes of a whole batch and joins numbers 0 and 1, so while it is trained
    only the first row of each batch fuses. An answer hangs on no company here, so then none does, as in that code it was
    for all rows of a test batch but one. Layers that it makes and never calls are held in `idle`, for they are counted.
    """

    def __init__(
        self, voice_width: int, words_width: int, width: int, heads: int, *, steps: int = 95, layers: int = 5,
        attention_heads: int = 8, graph_heads: int = 8, gate_width: int = 256, hidden: int = 256, drop: float = 0.15,
        as_released: bool = False, gated: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.released = as_released
        self.enter = Entering(voice_width, words_width, width, steps=steps, drop=drop)
        self.across = Across(width, layers, attention_heads, drop, as_released)
        for layer in (*self.across.voice_asks, *self.across.words_ask):
            # Ours. With scales of one the mean over a normed step's features is rounding, which the graph's norms blow up.
            nn.init.normal_(layer.feed_norm.weight, 1.0, SPREAD)
        sizes = (width, steps)
        self.graphs = nn.ModuleList([PairGraph(size, graph_heads) for size in sizes])
        self.gates: nn.ModuleList | None = None
        idle: list[nn.Module] = []
        if gated:
            self.gates = nn.ModuleList([FeatureGate(size, size, gate_width, drop) for size in sizes])
            self.leave = nn.ModuleList([projection(size, gate_width, drop) for size in sizes])
            self.leave_gate = nn.ModuleList([projection(gate_width, gate_width, drop) for _ in sizes])
            idle += [self.leave_gate[0], *(graph.leave for graph in self.graphs)]
        else:
            self.leave = nn.ModuleList([projection(size, size, drop) for size in sizes])
            idle += self.leave
        self.answer = answer(2 * gate_width if gated else sum(sizes), hidden, heads, drop)
        self.idle = idle if as_released else []  # a plain list: they are owned already
        for part in self.idle:
            part.requires_grad_(False)

    def forward(self, voice: Sequences, words: Sequences | None) -> Tensor:
        """[B, H]. No `words` at all: every row lacks them."""
        voice_BJD, words_BJD = self.across(*self.enter(voice, words))
        row_B = torch.arange(voice.length_B.shape[0], device=voice_BJD.device)
        joined_B = row_B < (int(self.training) if self.released else voice.length_B.shape[0])
        fuse = self._plain if self.gates is None else self._gated
        fused = [
            fuse(n, graph(voice_BJD.mean(axis), words_BJD.mean(axis), joined_B))
            for n, (graph, axis) in enumerate(zip(self.graphs, (1, 2), strict=True))
        ]
        return self.answer(torch.cat(fused, 1))

    def _plain(self, n: int, nodes_BND: Tensor) -> Tensor:
        """The nodes' mean, projected; `paper`: twice, as the code means to."""
        fused_BD = self.graphs[n].leave(nodes_BND.mean(1))
        return fused_BD if self.released else self.leave[n](fused_BD)

    def _gated(self, n: int, nodes_BND: Tensor) -> Tensor:
        """The nodes' mean beside what a gate makes of them."""
        assert self.gates is not None
        if not self.released:
            nodes_BND = self.graphs[n].leave(nodes_BND)
        gate_BD, _ = self.gates[n](nodes_BND[:, 0], nodes_BND[:, 1])
        # The code projects both gates with the one made for the means over features.
        leave_gate = self.leave_gate[1 if self.released else n]
        return self.leave[n](nodes_BND.mean(1)) + leave_gate(gate_BD)
