"""The cross-lingual bimodal family's encoders of one modality (BDCC 9(11):285): audio Mamba and text Mamba.

Letters: B rows, S steps, D channels of a step, X numbers that are given.

Both in two modes. `paper`: selective state spaces. `as_released`: what the official code runs. Its audio "Mamba" looks at
each frame alone; its text Mamba discretises otherwise (see `layers.mamba`).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from clser.models.layers.mamba import Mamba, MambaState, RmsNorm

Mode = Literal["paper", "as_released"]
States = tuple[MambaState | tuple[()], ...]


class PerFrame(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_BSD -> x_BSD, each frame by itself: what stands for a state space in the released audio encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(width, width), nn.Linear(width, width)
        self.to_in, self.to_out = nn.Linear(width, width), nn.Linear(width, width)

    def start(self, rows: int) -> tuple[()]:
        """Nothing is carried."""
        return ()

    def forward(self, x_BSD: Tensor, length_B: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        x_BSD = self.enter(x_BSD)
        return self.leave(torch.relu(x_BSD + self.to_in(x_BSD) + self.to_out(x_BSD))), state


class AudioMamba(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Frames of X numbers to frames of `width`: layers beside a straight way, the norm after their sum. It streams."""

    def __init__(
        self, given: int, width: int = 256, layers: int = 2, *, mode: Mode = "paper", drop: float = 0.2
    ) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Linear(given, width)
        # Channels within: `width`, as the text encoder's 512 is the width its paper gives.
        self.layers = nn.ModuleList(
            [PerFrame(width) if mode == "as_released" else Mamba(width, width) for _ in range(layers)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(layers)])
        self.drop = nn.Dropout(drop)

    def start(self, rows: int) -> States:
        """Before the first frame."""
        return tuple(layer.start(rows) for layer in self.layers)

    def forward(self, x_BSX: Tensor, length_B: Tensor, state: States) -> tuple[Tensor, States]:
        x_BSD = self.enter(x_BSX)
        after = []
        for layer, norm, before in zip(self.layers, self.norms, state, strict=True):
            y_BSD, left = layer(x_BSD, length_B, before)
            x_BSD = norm(x_BSD + self.drop(y_BSD))
            after.append(left)
        return x_BSD, tuple(after)


class TextMamba(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Steps of `width` numbers to as many: Mamba layers on a residual stream, the norm before each. It streams."""

    def __init__(
        self, width: int = 1024, inner: int = 512, layers: int = 2, *, mode: Mode = "paper", drop: float = 0.0
    ) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.ModuleList(
            [Mamba(width, inner, numbers=16, rank=32, released=mode == "as_released") for _ in range(layers)]
        )
        self.norms = nn.ModuleList([RmsNorm(width) for _ in range(layers)])
        self.drop = nn.Dropout(drop)

    def start(self, rows: int) -> States:
        """Before the first word."""
        return tuple(layer.start(rows) for layer in self.layers)

    def forward(self, x_BSD: Tensor, length_B: Tensor, state: States) -> tuple[Tensor, States]:
        after = []
        for layer, norm, before in zip(self.layers, self.norms, state, strict=True):
            y_BSD, left = layer(norm(x_BSD), length_B, before)
            x_BSD = x_BSD + self.drop(y_BSD)
            after.append(left)
        return x_BSD, tuple(after)
