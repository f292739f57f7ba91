"""Log-mel bands less their mean over an utterance so far: what a microphone and a room do to every frame goes.

Letters: B rows, T frames, M mel bands.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from typing import NamedTuple

from torch import Tensor

COLOUR_PRIOR_FRAMES = 10.0  # how many frames of speech the prior mean's colour counts for: 0.4 s
LOUDNESS_PRIOR_FRAMES = 0.5  # and its loudness, which a microphone's gain decides: forgotten at once
SPEECH_LEVEL = -6.0  # mean log-mel at which a frame counts half as speech


class Running(NamedTuple):
    """After each frame."""

    level_BT1: Tensor
    """How many frames counted as speech."""
    sum_BTM: Tensor
    """The sum of their bands."""
    colour_BTM: Tensor
    """Their mean less its own mean over bands, shrunk to nothing while little was heard."""
    mean_BTM: Tensor
    """The same with its loudness, which is shrunk far less."""


def running_colour(frame_BTM: Tensor, speech_BT1: Tensor, level_B1: Tensor, sum_BM: Tensor) -> Running:
    """`frame_BTM`: bands less a prior, so that shrunk to nothing is shrunk to the prior. Level and sum: those before.

    The colour tells something of the voice, where the loudness tells of the gain: so they are kept apart.
    """
    level_BT1 = level_B1[:, None] + speech_BT1.cumsum(1)
    sum_BTM = sum_BM[:, None] + (speech_BT1 * frame_BTM).cumsum(1)
    loudness_BT1 = sum_BTM.mean(2, keepdim=True)
    colour_BTM = (sum_BTM - loudness_BT1) / (level_BT1 + COLOUR_PRIOR_FRAMES)
    return Running(level_BT1, sum_BTM, colour_BTM, colour_BTM + loudness_BT1 / (level_BT1 + LOUDNESS_PRIOR_FRAMES))
