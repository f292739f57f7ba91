"""BiMamba's fusion (BDCC 9(11):285): voice and words side by side, step by step, through Mamba layers.

Letters: B rows, J steps after stretching, D channels.
"""

import torch
from torch import Tensor, nn

from clser.models.layers.crossing import Entering, answer, projection
from clser.models.layers.mamba import Mamba, RmsNorm
from clser.models.tensors import Sequences


class Joining(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Both stretched to one length, joined at each step, then layers beside a straight way, a norm after each."""

    def __init__(
        self, voice_width: int, words_width: int, width: int, heads: int, *, steps: int = 95, layers: int = 4,
        numbers: int = 16, hidden: int = 512, drop: float = 0.15, as_released: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.enter = Entering(voice_width, words_width, width, steps=steps, drop=drop, always=True)
        self.join = projection(2 * width, width, drop)
        self.layers = nn.ModuleList(
            [Mamba(width, width, numbers, max(1, width // 16), as_released) for _ in range(layers)]
        )
        self.norms = nn.ModuleList([RmsNorm(width) for _ in range(layers)])
        self.answer = answer(width + steps, hidden, heads, drop)

    def forward(self, voice: Sequences, words: Sequences | None) -> Tensor:
        """[B, H]. No `words` at all: every row lacks them."""
        x_BJD = self.join(torch.cat(self.enter(voice, words), 2))
        steps_B = torch.full_like(voice.length_B, x_BJD.shape[1])
        for layer, norm in zip(self.layers, self.norms, strict=True):
            y_BJD, _ = layer(x_BJD, steps_B, layer.start(steps_B.shape[0]))
            x_BJD = x_BJD + norm(y_BJD)
        return self.answer(torch.cat((x_BJD.mean(1), x_BJD.mean(2)), 1))
