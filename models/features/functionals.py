"""What a track of frames was like: statistics over short windows, and over an utterance so far.

Letters: B rows, T frames, D numbers of a frame, E = D + 1 (the last is 1 in every frame that was there), J windows, W frames
of a window, G flags, F numbers that come out, K hops kept, X a hop's frames end to end.

Any column may count in some frames only: that of the pitch, say, where another column calls the frame voiced. Statistics
over no frame at all are 0. A window's slope is the change over its whole length, an utterance's that over a hundred
frames: a second of a track with a frame every 10 ms.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clser.models.features.framing import Framing
from clser.models.tensors import real

WINDOW_STATISTICS = ("mean", "std", "min", "max", "slope")
STATISTICS = (*WINDOW_STATISTICS, "skew", "kurtosis")
"""In the order they come out: the first of every column, then the second of every column, and so on."""

SLOPE_FRAMES = 100.0
ON = 0.5  # a flag is on from here; a frame of less weight counts for neither the least nor the greatest
LEAST_WEIGHT = 1e-3
LEAST_SPREAD = 1e-6  # of two frames side by side that count in full it is 5e-5 and more
SMALLEST_VARIANCE = 1e-6  # of what varies less, no shape can be told: its skew and kurtosis go to 0
LEAST_VARIANCE = 1e-12  # a root of zero has no gradient
NEVER = 1e30
FAN, LEVELS = 8, 6  # greatest so far: 8^6 frames in one call, 43 minutes


class Weights(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_BTE -> how much each frame counts for each column [B, T, D], 0..1.

    `by` names for a column the one that tells its weight. A weight is on or off, from `ON`; with `soft` it is what stands
    there. A column that `by` does not name counts wherever there was a frame.
    """

    def __init__(self, width: int, by: Mapping[int, int], soft: bool) -> None:
        super().__init__()
        assert all(0 <= column < width for pair in by.items() for column in pair)
        self.soft = soft
        self.register_buffer("by_D", torch.tensor([by.get(d, width) for d in range(width)]), persistent=False)

    def forward(self, x_BTE: Tensor) -> Tensor:
        weight_BTD: Tensor = x_BTE.index_select(-1, self.by_D)
        return weight_BTD.clamp(0.0, 1.0) if self.soft else (weight_BTD >= ON).to(x_BTE.dtype)


class WindowState(NamedTuple):
    """The frames that later windows reach back to. Zeros: no frame yet."""

    past_BKX: Tensor


class WindowFunctionals(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_BTD -> [B, T // hop, 5D]: WINDOW_STATISTICS of the last `window` frames, every `hop` frames.

    T and every row's length are multiples of `hop`. Frames before the start count for nothing.
    """

    def __init__(
        self, width: int, window: int, hop: int, by: Mapping[int, int] | None = None, soft: bool = False
    ) -> None:
        super().__init__()
        self.width, self.window, self.hop = len(WINDOW_STATISTICS) * width, window, hop
        self.inner = width + 1
        self.framing = Framing(window * self.inner, hop * self.inner)
        self.weights = Weights(width, by or {}, soft)
        self.register_buffer("time_W1", torch.arange(window)[:, None] / window, persistent=False)

    def start(self, rows: int) -> WindowState:
        """The state before the first frame."""
        return WindowState(self.time_W1.new_zeros(rows, self.framing.kept, self.framing.hop))

    def forward(self, x_BTD: Tensor, length_B: Tensor, state: WindowState) -> tuple[Tensor, WindowState]:
        """The state that comes back is that after each row's own `length_B` frames."""
        flat_BX = _with_ones(x_BTD).flatten(1)
        windows_BJX = self.framing.cut(state.past_BKX, flat_BX)
        windows_BJWE = windows_BJX.reshape(x_BTD.shape[0], -1, self.window, self.inner)
        kept_BKX = self.framing.keep(state.past_BKX, flat_BX, length_B // self.hop)
        return self._of(windows_BJWE[..., :-1], self.weights(windows_BJWE)), WindowState(kept_BKX)

    def _of(self, x_BJWD: Tensor, w_BJWD: Tensor) -> Tensor:
        sum_ = w_BJWD.sum(2).clamp_min(LEAST_WEIGHT)
        mean = (w_BJWD * x_BJWD).sum(2) / sum_
        off = x_BJWD - mean[:, :, None]
        when = self.time_W1 - ((w_BJWD * self.time_W1).sum(2) / sum_)[:, :, None]
        std = torch.sqrt(((w_BJWD * off.square()).sum(2) / sum_).clamp_min(LEAST_VARIANCE))
        spread = (w_BJWD * when.square()).sum(2).clamp_min(LEAST_SPREAD)
        slope = (w_BJWD * when * off).sum(2) / spread
        heavy = w_BJWD >= ON
        least = torch.where(heavy, x_BJWD, NEVER).amin(2)
        greatest = torch.where(heavy, x_BJWD, -NEVER).amax(2)
        light = greatest < -NEVER / 2
        numbers = (mean, std, least.masked_fill(light, 0.0), greatest.masked_fill(light, 0.0), slope)
        none = w_BJWD.sum(2) < LEAST_WEIGHT
        return torch.cat([x.masked_fill(none, 0.0) for x in numbers], 2)


def _with_ones(x_BTD: Tensor) -> Tensor:
    return torch.cat((x_BTD, torch.ones_like(x_BTD[..., :1])), 2)


class UtteranceState(NamedTuple):
    """Sums over the frames so far, about their own means. Zeros: no frame yet."""

    frames_B1: Tensor
    weight_BD: Tensor
    mean_BD: Tensor
    second_BD: Tensor
    """The sum of the squared distance from the mean; then of its third and fourth power."""
    third_BD: Tensor
    fourth_BD: Tensor
    when_BD: Tensor
    """The mean time of the frames that counted, in hundreds of frames."""
    spread_BD: Tensor
    """The sum of the squared distance from that time."""
    trend_BD: Tensor
    """The sum of the distance from that time times the distance from the mean."""
    heavy_BD: Tensor
    """1 once a frame counted for least and greatest."""
    least_BD: Tensor
    greatest_BD: Tensor
    flags_BG: Tensor
    """In how many frames each flag was on."""


class UtteranceFunctionals(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_BTD -> [B, T, 7D + G]: STATISTICS of all frames so far, then the share of frames in which each flag was on.

    `flags` are columns. Skew and excess kurtosis are the plain ones, without a correction for few frames.
    Within a call the sums are in double precision (so not on a device that lacks it): the fourth power of a distance from
    a mean that still wanders leaves a single float no digits. Between calls single floats do, about the mean as it then is.
    """

    def __init__(
        self, width: int, by: Mapping[int, int] | None = None, flags: Sequence[int] = (), soft: bool = False
    ) -> None:
        super().__init__()
        self.inner, self.width = width, len(STATISTICS) * width + len(flags)
        self.weights = Weights(width, by or {}, soft)
        self.register_buffer("flags_G", torch.tensor(list(flags), dtype=torch.int64), persistent=False)
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def start(self, rows: int) -> UtteranceState:
        """The state before the first frame."""
        wide = len(UtteranceState._fields) - 2
        zeros = self.like.new_zeros
        parts = [zeros(rows, 1), *(zeros(rows, self.inner) for _ in range(wide)), zeros(rows, len(self.flags_G))]
        return UtteranceState(*parts)

    def forward(self, x_BTD: Tensor, length_B: Tensor, state: UtteranceState) -> tuple[Tensor, UtteranceState]:
        """The state that comes back is that after each row's own `length_B` frames."""
        real_BT1 = real(length_B, x_BTD.shape[1])[..., None].to(x_BTD.dtype)
        weight_BTD = self.weights(_with_ones(x_BTD)) * real_BT1
        moments = _moments(x_BTD, weight_BTD, state)
        extremes = _extremes(x_BTD, weight_BTD >= ON, state)
        frames_BT1 = state.frames_B1[:, None] + real_BT1.cumsum(1)
        on_BTG = (x_BTD.index_select(-1, self.flags_G) >= ON).to(x_BTD.dtype) * real_BT1
        flags_BTG = state.flags_BG[:, None] + on_BTG.cumsum(1)
        so_far = UtteranceState(*[frames_BT1, *moments, *extremes, flags_BTG])
        # Padding weighs nothing, so the sums after the last frame are those after each row's own last one.
        return _read(so_far), UtteranceState(*(sum_[:, -1].to(self.like.dtype) for sum_ in so_far))


def _moments(x_BTD: Tensor, weight_BTD: Tensor, state: UtteranceState) -> list[Tensor]:
    """weight, mean, second, third, fourth, when, spread, trend after every frame [B, T, D], in double precision.

    Powers of the distance from the mean before this call are summed, then moved to the mean after each frame: the
    binomial theorem. Pebay 2008 ("Formulas for robust, one-pass parallel computation of covariances and arbitrary-order
    statistical moments") does the same for two sets.
    """
    weight, mean, second, third, fourth, when, spread, trend = (part.double()[:, None] for part in state[1:9])
    w, x = weight_BTD.double(), x_BTD.double()
    centre = torch.where(weight > 0.0, mean, x[:, :1])
    off = x - centre
    step = torch.arange(1, x_BTD.shape[1] + 1, device=x.device).double()[None, :, None]
    late = (state.frames_B1.double()[:, None] + step) / SLOPE_FRAMES - when
    n = weight + w.cumsum(1)
    some = n.clamp_min(1e-12)
    s1, s2 = (w * off).cumsum(1), second + (w * off**2).cumsum(1)
    s3, s4 = third + (w * off**3).cumsum(1), fourth + (w * off**4).cumsum(1)
    t1, t2 = (w * late).cumsum(1), spread + (w * late**2).cumsum(1)
    both = trend + (w * late * off).cumsum(1)
    by, later = s1 / some, t1 / some
    return [
        n,
        torch.where(n > 0.0, centre + by, 0.0),
        s2 - n * by**2,
        s3 - 3.0 * by * s2 + 2.0 * n * by**3,
        s4 - 4.0 * by * s3 + 6.0 * by**2 * s2 - 3.0 * n * by**4,
        when + later,
        t2 - n * later**2,
        both - n * by * later,
    ]


def _extremes(x_BTD: Tensor, heavy_BTD: Tensor, state: UtteranceState) -> tuple[Tensor, Tensor, Tensor]:
    """heavy, least, greatest after every frame [B, T, D]."""
    both = torch.cat((-x_BTD, x_BTD), 2)
    both = torch.where(torch.cat((heavy_BTD, heavy_BTD), 2), both, -NEVER)
    before = torch.cat((-state.least_BD, state.greatest_BD), 1)
    before = torch.where(torch.cat((state.heavy_BD, state.heavy_BD), 1) >= ON, before, -NEVER)
    less, greatest = torch.maximum(_greatest_so_far(both), before[:, None]).chunk(2, 2)
    none = greatest < -NEVER / 2
    return (~none).to(x_BTD.dtype), (-less).masked_fill(none, 0.0), greatest.masked_fill(none, 0.0)


def _greatest_so_far(x_BTD: Tensor) -> Tensor:
    """[B, T, D]: of each frame and all before it. Each level reaches eight times as far back; ONNX knows no running maximum."""
    rows, steps, width = x_BTD.shape
    back_F = torch.arange(FAN, device=x_BTD.device)
    at_T1 = torch.arange(steps, device=x_BTD.device)[:, None]
    for level in range(LEVELS):
        # What lies before the start is the first frame again, which changes no maximum.
        from_TF = (at_T1 - FAN**level * back_F).clamp_min(0)
        x_BTD = x_BTD.index_select(1, from_TF.flatten()).reshape(rows, -1, FAN, width).amax(2)
    return x_BTD


def _read(so_far: UtteranceState) -> Tensor:
    """[B, T, 7D + G] from the sums [B, T, ...] after every frame."""
    n = so_far.weight_BD.clamp_min(LEAST_WEIGHT)
    none = so_far.weight_BD < LEAST_WEIGHT
    variance = (so_far.second_BD / n).clamp_min(LEAST_VARIANCE)
    enough = variance.clamp_min(SMALLEST_VARIANCE)
    numbers = (
        so_far.mean_BD,
        torch.sqrt(variance),
        so_far.least_BD,
        so_far.greatest_BD,
        so_far.trend_BD / so_far.spread_BD.clamp_min(LEAST_SPREAD),
        so_far.third_BD / n / (enough * torch.sqrt(enough)),
        (so_far.fourth_BD / n - 3.0 * variance.square()) / enough.square(),
    )
    of_all = torch.cat([x.float().masked_fill(none, 0.0) for x in numbers], 2)
    return torch.cat((of_all, so_far.flags_BG / so_far.frames_B1.clamp_min(1.0)), 2)
