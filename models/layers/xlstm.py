"""xLSTM: recurrent layers with exponential gates, one with scalar memories (s), one with a matrix memory (m).

Beck et al. 2024, arXiv 2405.04517; equation numbers are that paper's.
Letters: B rows, T steps, D channels, H heads, E channels of a head, G blocks of a block-diagonal map, K steps of the past.

An s layer's step needs the answer of the step before (eq. 11 to 14), so it is a loop over time; an exported graph holds
that loop too. An m layer's steps are computed together, in chunks.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.layers.convolution import CausalConv
from clser.models.layers.scripting import scripted
from clser.models.tensors import real

CHUNK = 64  # steps of an m layer computed together
BLOCK_WIDTH = 4  # channels that mix in an m layer's queries, keys and values (appendix on the blocks)
HIGHEST = 60.0  # exponent at which the floor of eq. 21 stops growing: what it divides is nothing by then


class SlstmState(NamedTuple):
    """An s layer's memory. Zeros: nothing heard yet."""

    conv_BKD: Tensor
    hidden_BD: Tensor
    cell_BD: Tensor
    normal_BD: Tensor
    top_BD: Tensor
    """The stabiliser m of eq. 15: cell and normaliser are kept divided by its exponential."""


class MlstmState(NamedTuple):
    """An m layer's memory. Zeros: nothing heard yet."""

    conv_BKD: Tensor
    memory_BHEE: Tensor
    """Values in rows, keys in columns, as C in eq. 19."""
    normal_BHE: Tensor
    top_BH: Tensor


class XLstm(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A stack of residual blocks, `pattern` from the input up. What comes out at padding is zero."""

    streams = "live"

    def __init__(
        self, width: int, pattern: Sequence[str] = ("s", "m", "m"), heads: int = 4, *, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList(BLOCKS[kind](width, heads, drop) for kind in pattern)
        self.last_norm = nn.LayerNorm(width)

    def start(self, rows: int) -> tuple[Any, ...]:
        """The state before the first step, one for each block."""
        return tuple(block.start(rows) for block in self.blocks)

    def forward(self, x_BTD: Tensor, length_B: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """The steps, and the state after each row's own `length_B` of them."""
        padding_BT1 = ~real(length_B, x_BTD.shape[1])[..., None]
        x_BTD = x_BTD.masked_fill(padding_BT1, 0.0)
        next_ = []
        for block, part in zip(self.blocks, state, strict=True):
            x_BTD, part_after = block(x_BTD, length_B, part)
            next_.append(part_after)
        return self.last_norm(x_BTD).masked_fill(padding_BT1, 0.0), tuple(next_)


class SlstmBlock(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Norm, convolution, s layer, head norm, residual; then norm, a gated projection up by 4/3 and down, residual."""

    def __init__(self, width: int, heads: int, drop: float = 0.0) -> None:
        super().__init__()
        assert width % heads == 0, f"{width} channels cannot be shared by {heads} heads"
        self.width, self.heads = width, heads
        self.norm, self.conv = nn.LayerNorm(width), CausalConv(width)
        self.gates_in, self.values_in = (nn.ModuleList(Blockwise(width, heads) for _ in range(2)) for _ in range(2))
        self.bias_4D = nn.Parameter(torch.zeros(4, width))
        self.recurrent_HEF = nn.Parameter(torch.zeros(heads, width // heads, 4 * width // heads))
        self.head_norm = HeadNorm(width, heads)
        hidden = 8 * math.ceil(width / 6)
        self.feed_norm = nn.LayerNorm(width)
        self.grow, self.shrink = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.drop = nn.Dropout(drop)
        with torch.no_grad():
            self.bias_4D[1] = torch.linspace(3.0, 6.0, width)  # forgets little at first, some channels less

    def start(self, rows: int) -> SlstmState:
        """The state before the first step."""
        zeros = self.bias_4D.new_zeros
        return SlstmState(self.conv.start(rows), *(zeros(rows, self.width) for _ in range(4)))

    def forward(self, x_BTD: Tensor, length_B: Tensor, state: SlstmState) -> tuple[Tensor, SlstmState]:
        """The steps, and the state after each row's own `length_B` of them."""
        entry_BTD = self.norm(x_BTD)
        conv_BTD, conv_BKD = self.conv(entry_BTD, length_B, state.conv_BKD)
        conv_BTD = functional.silu(conv_BTD)  # heard by the input and forget gates, not by what is stored
        asked = [gate(conv_BTD) for gate in self.gates_in] + [value(entry_BTD) for value in self.values_in]
        gates_BT4D = torch.stack(asked, 2) + self.bias_4D  # W x + b of eq. 12, 13, 11, 14
        gates_THBF = split(gates_BT4D, self.heads).permute(1, 3, 0, 2, 4).flatten(3)
        real_TB1 = real(length_B, x_BTD.shape[1]).T[..., None]
        parts = [split(part, self.heads).transpose(0, 1) for part in state[1:]]
        loop = scripted(_steps_to_script) if torch.jit.is_tracing() else _steps
        hidden_THBE, memory = loop(gates_THBF, real_TB1, self.recurrent_HEF, tuple(parts))
        hidden_BTHE = hidden_THBE.permute(2, 0, 1, 3)
        x_BTD = x_BTD + self.drop(self.head_norm(hidden_BTHE))
        one_BTD, two_BTD = self.grow(self.feed_norm(x_BTD)).chunk(2, 2)
        x_BTD = x_BTD + self.drop(self.shrink(functional.gelu(one_BTD) * two_BTD))
        return x_BTD, SlstmState(conv_BKD, *(part.transpose(0, 1).flatten(1) for part in memory))


class ScalarMemory(NamedTuple):
    """h, c, n and m of eq. 8 to 10 and 15, each [H, B, E]."""

    hidden: Tensor
    cell: Tensor
    normal: Tensor
    top: Tensor


def _step(gates_HBF: Tensor, real_B1: Tensor, recurrent_HEF: Tensor, was: ScalarMemory) -> ScalarMemory:
    """One step of all heads. F: what the input asks of the four gates."""
    asked_HBF = gates_HBF + was.hidden @ recurrent_HEF  # eq. 11 to 14, before their curves
    log_in, forget, value, out = asked_HBF.chunk(4, dim=2)
    # The first step has no past, and the input gate may be as small as it likes: a share of exp(-100) for that nothing.
    kept = torch.where(was.normal > 0.0, functional.logsigmoid(forget) + was.top, log_in - 100.0)
    top = torch.maximum(kept, log_in)  # eq. 15
    share_in, share_kept = torch.exp(log_in - top), torch.exp(kept - top)  # eq. 16, 17
    cell = share_kept * was.cell + share_in * torch.tanh(value)  # eq. 8, 11
    normal = share_kept * was.normal + share_in  # eq. 9
    hidden = torch.sigmoid(out) * cell / normal  # eq. 10, 14
    return ScalarMemory(
        torch.where(real_B1, hidden, was.hidden),
        torch.where(real_B1, cell, was.cell),
        torch.where(real_B1, normal, was.normal),
        torch.where(real_B1, top, was.top),
    )


def _steps(
    gates_THBF: Tensor, real_TB1: Tensor, recurrent_HEF: Tensor, memory: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, ScalarMemory]:
    now, answers = ScalarMemory(*memory), []
    for gates_HBF, real_B1 in zip(gates_THBF.unbind(0), real_TB1.unbind(0), strict=True):
        now = _step(gates_HBF, real_B1, recurrent_HEF, now)
        answers.append(now.hidden)
    return torch.stack(answers), now


def _steps_to_script(
    gates_THBF: Tensor, real_TB1: Tensor, recurrent_HEF: Tensor, memory: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, ScalarMemory]:
    """The same in the words that the exporter can write down as a loop; live, few steps are put together this way."""
    now = ScalarMemory(memory[0], memory[1], memory[2], memory[3])
    answers = now.hidden[None][:0]
    for t in range(gates_THBF.shape[0]):
        now = _step(gates_THBF[t], real_TB1[t], recurrent_HEF, now)
        answers = torch.cat((answers, now.hidden[None]), 0)
    return answers, now


class MlstmBlock(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Norm, projection up by 2 into two ways; one through convolution and m layer, gated by the other; down, residual."""

    def __init__(self, width: int, heads: int, drop: float = 0.0) -> None:
        super().__init__()
        inner = 2 * width
        assert inner % heads == 0, f"{inner} channels cannot be shared by {heads} heads"
        self.inner, self.heads = inner, heads
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * inner), nn.Linear(inner, width)
        self.conv = CausalConv(inner)
        self.query, self.key, self.value = (Blockwise(inner, -(-inner // BLOCK_WIDTH)) for _ in range(3))
        self.gates = nn.Linear(3 * inner, 2 * heads)
        self.head_norm = HeadNorm(inner, heads)
        self.skip_D = nn.Parameter(torch.ones(inner))
        self.drop = nn.Dropout(drop)
        with torch.no_grad():
            self.gates.weight.zero_()
            self.gates.bias[:heads].normal_(std=0.1)
            self.gates.bias[heads:] = torch.linspace(3.0, 6.0, heads)  # forgets little at first, some heads less

    def start(self, rows: int) -> MlstmState:
        """The state before the first step."""
        zeros, channels = self.skip_D.new_zeros, self.inner // self.heads
        head = (rows, self.heads, channels)
        return MlstmState(self.conv.start(rows), zeros(*head, channels), zeros(head), zeros(rows, self.heads))

    def forward(self, x_BTD: Tensor, length_B: Tensor, state: MlstmState) -> tuple[Tensor, MlstmState]:
        """The steps, and the state after each row's own `length_B` of them."""
        in_BTD, gate_BTD = self.up(self.norm(x_BTD)).chunk(2, 2)
        conv_BTD, conv_BKD = self.conv(in_BTD, length_B, state.conv_BKD)
        conv_BTD = functional.silu(conv_BTD)
        query_BTD, key_BTD, value_BTD = self.query(conv_BTD), self.key(conv_BTD), self.value(in_BTD)  # eq. 22 to 24
        gates_BHT = self.gates(torch.cat((query_BTD, key_BTD, value_BTD), 2)).transpose(1, 2)
        log_in_BHT, forget_BHT = gates_BHT.chunk(2, 1)  # eq. 25, 26, before their curves
        padding_B1T = ~real(length_B, x_BTD.shape[1])[:, None]
        # Padding puts nothing in and forgets nothing: the state after it is the state before it.
        log_in_BHT = log_in_BHT.masked_fill(padding_B1T, -torch.inf)
        log_keep_BHT = functional.logsigmoid(forget_BHT).masked_fill(padding_B1T, 0.0)
        key_BTD = key_BTD * (self.inner // self.heads) ** -0.5  # eq. 23
        heads = Heads(*(split(x, self.heads).transpose(1, 2) for x in (query_BTD, key_BTD, value_BTD)))
        hidden_BHTE, memory = matrix_memory(heads, log_in_BHT, log_keep_BHT, MatrixMemory(*state[1:]))
        hidden_BTD = self.head_norm(hidden_BHTE.transpose(1, 2)) + self.skip_D * conv_BTD
        # The output gate of eq. 27 is the other way up, through a swish (the block's figure).
        x_BTD = x_BTD + self.drop(self.down(hidden_BTD * functional.silu(gate_BTD)))
        return x_BTD, MlstmState(conv_BKD, *memory)


class Heads(NamedTuple):
    """Queries, keys and values, each [B, H, T, E]."""

    query: Tensor
    key: Tensor
    value: Tensor


class MatrixMemory(NamedTuple):
    """C and n of eq. 19 and 20, divided by the exponential of `top_BH`."""

    memory_BHEE: Tensor
    normal_BHE: Tensor
    top_BH: Tensor


def matrix_memory(
    heads: Heads, log_in_BHT: Tensor, log_keep_BHT: Tensor, state: MatrixMemory
) -> tuple[Tensor, MatrixMemory]:
    """Eq. 19 to 21 for all steps: what is read after each, [B, H, T, E], and the memory after the last."""
    if torch.jit.is_tracing():  # a loop over chunks would fix T in the graph; live, T is small
        return _chunk(heads, log_in_BHT, log_keep_BHT, state)
    parts = []
    # taken apart at once: the gradient of a chunk cut out alone is as long as all steps
    for *cut, log_in, log_keep in zip(*(x.split(CHUNK, 2) for x in (*heads, log_in_BHT, log_keep_BHT)), strict=True):
        hidden, state = _chunk(Heads(*cut), log_in, log_keep, state)
        parts.append(hidden)
    return torch.cat(parts, 2), state


def _chunk(heads: Heads, log_in_BHT: Tensor, log_keep_BHT: Tensor, state: MatrixMemory) -> tuple[Tensor, MatrixMemory]:
    """The recurrence written out: a step reads every earlier one by what was let in there and what was kept since."""
    query_BHTE, key_BHTE, value_BHTE = heads
    kept_BHT = log_keep_BHT.cumsum(2)
    step_T = torch.arange(query_BHTE.shape[2], device=query_BHTE.device)
    ask_T1, look_1T = step_T[:, None], step_T[None]
    # What was kept between two steps is summed from the one to the other: the difference of two long sums is not exact.
    share_BHTT = log_keep_BHT[..., :, None].masked_fill(ask_T1 <= look_1T, 0.0).cumsum(2) + log_in_BHT[..., None, :]
    share_BHTT = share_BHTT.masked_fill(ask_T1 < look_1T, -torch.inf)
    from_before_BHT = kept_BHT + state.top_BH[..., None]
    top_BHT = torch.maximum(from_before_BHT, share_BHTT.amax(3))  # eq. 15, unrolled
    share_BHTT = torch.exp(share_BHTT - top_BHT[..., None])
    before_BHT1 = torch.exp(from_before_BHT - top_BHT)[..., None]

    alike_BHTT = share_BHTT * (query_BHTE @ key_BHTE.transpose(2, 3))
    read_BHTE = alike_BHTT @ value_BHTE + before_BHT1 * (query_BHTE @ state.memory_BHEE.transpose(2, 3))  # C q
    weight_BHT1 = alike_BHTT.sum(3, keepdim=True) + before_BHT1 * (query_BHTE @ state.normal_BHE[..., None])  # n q
    floor_BHT1 = torch.exp((-top_BHT).clamp_max(HIGHEST))[..., None]  # the 1 of eq. 21, divided as C and n are
    hidden_BHTE = read_BHTE / torch.maximum(weight_BHT1.abs(), floor_BHT1)  # eq. 21

    # The last step's shares are the state's: of what came before, and of each step.
    share_BHT1, left_BH1 = share_BHTT[:, :, -1, :, None], before_BHT1[:, :, -1]
    memory_BHEE = (
        left_BH1[..., None] * state.memory_BHEE + (share_BHT1 * value_BHTE).transpose(2, 3) @ key_BHTE
    )  # eq. 19
    normal_BHE = left_BH1 * state.normal_BHE + (share_BHT1 * key_BHTE).sum(2)  # eq. 20
    return hidden_BHTE, MatrixMemory(memory_BHEE, normal_BHE, top_BHT[:, :, -1])


def split(x: Tensor, parts: int) -> Tensor:
    """The last axis cut in parts, [..., parts, -1]. (The exporter takes the sizes that `unflatten` gives for fixed ones.)"""
    return x.reshape(*x.shape[:-1], parts, x.shape[-1] // parts)


class Blockwise(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A linear map whose channels mix within their block only, without a bias."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        assert width % blocks == 0, f"{width} channels cannot be shared by {blocks} blocks"
        self.blocks = blocks
        size = width // blocks
        self.weight_GEE = nn.Parameter(torch.randn(blocks, size, size) * math.sqrt(0.4 / size))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D]."""
        x_BGTE = split(x_BTD, self.blocks).transpose(1, 2)
        return (x_BGTE @ self.weight_GEE).transpose(1, 2).flatten(2)


class HeadNorm(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Each head to mean 0 and deviation 1, times a learnt scale."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.size = width // heads
        self.scale_D = nn.Parameter(torch.ones(width))

    def forward(self, x_BTHE: Tensor) -> Tensor:
        """[B, T, D]."""
        return functional.layer_norm(x_BTHE, (self.size,)).flatten(2) * self.scale_D


BLOCKS: dict[str, Callable[[int, int, float], nn.Module]] = {"s": SlstmBlock, "m": MlstmBlock}
