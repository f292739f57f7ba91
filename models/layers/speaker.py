"""What is usual: frames against all speech, and against what their speaker sounded like before.

Letters: B rows, T frames, F numbers of a frame, X = 1 + 2F.

What is known of a speaker is three sums, weighted by how much of a frame is speech, so that clips heard at any time can
be added up. The little that is known at first is shrunk to the prior: the mean and deviation over all training speech.
"""

import torch
from torch import Tensor, nn

from clser.models.layers.averages import SMALLEST_DEVIATION

SPEAKER_PRIOR_FRAMES = 50.0
"""How many frames of speech the prior counts for beside what was heard of the speaker: 2 s."""
SMALLEST_VARIANCE = 0.05
"""Of one speaker, against all."""


class SpeakerNorm(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """The prior, and what is known of each speaker beside it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("mean_F", torch.zeros(width))
        self.register_buffer("deviation_F", torch.ones(width))

    def fit(self, x_NF: Tensor) -> None:
        """Takes the prior from frames of speech; without any, nothing changes."""
        if len(x_NF) > 1:
            self.mean_F.copy_(x_NF.mean(0))
            self.deviation_F.copy_(x_NF.std(0).clamp_min(SMALLEST_DEVIATION))

    def plain(self, x_BTF: Tensor) -> Tensor:
        """Mean 0 and deviation 1 over all speech."""
        return (x_BTF - self.mean_F) / self.deviation_F

    def sums(self, plain_BTF: Tensor, speech_BT1: Tensor) -> Tensor:
        """[B, X]: what these frames tell of their speaker."""
        first_BF = (speech_BT1 * plain_BTF).sum(1)
        second_BF = (speech_BT1 * plain_BTF.square()).sum(1)
        return torch.cat((speech_BT1.sum(1), first_BF, second_BF), 1)

    def usual(self, speaker_BX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 1, F] twice, the speaker's mean and deviation (0 and 1 of somebody unknown); and [B, 1, 1], how well known."""
        heard_B1, first_BF, second_BF = speaker_BX[:, None].split((1, self.width, self.width), 2)
        total_B11 = heard_B1 + SPEAKER_PRIOR_FRAMES
        mean_B1F = first_BF / total_B11
        variance_B1F = (second_BF + SPEAKER_PRIOR_FRAMES) / total_B11 - mean_B1F.square()
        return mean_B1F, variance_B1F.clamp_min(SMALLEST_VARIANCE).sqrt(), heard_B1 / total_B11
