"""A system in one file, as somebody else would write it: a running mean, exactly or by window; it may know speakers.

Letters: B rows, T frames, K asked frames, F numbers of the front, D channels, X = 1 + D.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from clser.models.features.logmel import FEATURES
from clser.models.systems import About, Streams
from clser.models.tensors import Sequences, picked, real

ABOUT = About("A running mean", "a test")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    streams: Literal["exactly", "window", "end"] = "exactly"
    width: int = 12
    breaks: Literal["", "length"] = ""
    enrols: bool = False


class MeanState(NamedTuple):
    sum_BD: Tensor
    frames_B1: Tensor


class RunningMean(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    fronts = ("logmel",)
    words = ""
    frame_samples = 1280
    window_s, hop_s = 1.6, 0.4

    def __init__(self, config: Config, heads: Sequence[str]) -> None:
        super().__init__()
        self.heads, self.config = tuple(heads), config
        self.enter = nn.Linear(FEATURES, config.width)
        self.leave = nn.Linear(config.width, len(heads))
        self.streams: Streams = config.streams

    def start(self, rows: int) -> Any:
        zeros = self.enter.weight.new_zeros
        return MeanState(zeros(rows, self.config.width), zeros(rows, 1)) if self.streams == "exactly" else ()

    def forward(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None = None) -> tuple[Tensor, Any]:
        mean_BKD, after = self.mean(given, state, at_BK)
        return self.leave(mean_BKD), after

    def mean(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None) -> tuple[Tensor, Any]:
        x_BTF, length_B = given["logmel"]
        real_BT1 = real(length_B, x_BTF.shape[1])[..., None].float()
        heard_BTD = torch.tanh(self.enter(x_BTF * 0.1)) * real_BT1
        if self.config.breaks == "length":
            heard_BTD = heard_BTD / int(x_BTF.shape[1])
        if self.streams != "exactly":
            mean_BD = heard_BTD.sum(1) / real_BT1.sum(1).clamp_min(1.0)
            return mean_BD[:, None], state
        # two frames of the front in one of the system
        sum_BTD = state.sum_BD[:, None] + heard_BTD.cumsum(1)[:, 1::2]
        frames_BT1 = state.frames_B1[:, None] + real_BT1.cumsum(1)[:, 1::2]
        after = MeanState(state.sum_BD + heard_BTD.sum(1), state.frames_B1 + real_BT1.sum(1))
        if at_BK is not None:
            sum_BTD, frames_BT1 = picked(sum_BTD, at_BK), picked(frames_BT1, at_BK)
        return sum_BTD / frames_BT1.clamp_min(1.0), after


class KnowingMean(RunningMean):
    """It answers from how the mean differs from the speaker's usual one."""

    def __init__(self, config: Config, heads: Sequence[str]) -> None:
        super().__init__(config, heads)
        self.speaker_numbers = 1 + config.width

    def hear(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None = None) -> tuple[Tensor, Any]:
        mean_BKD, after = self.mean(given, state, at_BK)
        return torch.cat((torch.ones_like(mean_BKD[..., :1]), mean_BKD), -1), after

    def answer(self, e_BKX: Tensor, speaker_BX: Tensor) -> Tensor:
        usual_BD = speaker_BX[:, 1:] / (1.0 + speaker_BX[:, :1])
        return self.leave(e_BKX[..., 1:] - usual_BD[:, None])

    def forward(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None = None) -> tuple[Tensor, Any]:
        e_BKX, after = self.hear(given, state, at_BK)
        return self.answer(e_BKX, e_BKX.new_zeros(len(e_BKX), self.speaker_numbers)), after


def build(config: Config, heads: Sequence[str]) -> RunningMean:
    return (KnowingMean if config.enrols else RunningMean)(config, heads)
