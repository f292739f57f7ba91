"""The cross-lingual bimodal family's encoders of one modality (BDCC 9(11):285, tables 5 and 7): Mamba and its rivals.

Letters: B rows, S steps, D channels of a step, X numbers that are given.

Mamba comes in two modes. `paper`: selective state spaces. `as_released`: what the official code runs. Its audio "Mamba"
looks at each frame alone; its text Mamba discretises otherwise (see `layers.mamba`). The rivals have one mode.
"""

from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from clser.models.errors import GivenError
from clser.models.layers.mamba import Mamba, MambaState, RmsNorm
from clser.models.layers.recurrent import Lstm
from clser.models.layers.transformer import Transformer
from clser.models.layers.xlstm import XLstm

Mode = Literal["paper", "as_released"]
Kind = Literal["mamba", "lstm", "xlstm", "transformer"]
States = tuple[MambaState | tuple[()], ...]


class Encoder(Protocol):
    """An nn.Module with these."""

    width: int
    """Channels of what comes out."""
    streams: str
    """live: a step hears itself and those before it. end: all of its row."""

    def start(self, rows: int) -> Any:
        """Before the first step."""

    def __call__(self, x_BSX: Tensor, length_B: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As many steps, and the state after each row's own."""


class Size(NamedTuple):
    """Of an encoder that is no Mamba."""

    hidden: int
    """Channels within: an LSTM has as many each way."""
    layers: int
    """An xLSTM's first is an s layer, the others are m layers."""
    heads: int
    feed_forward: int
    drop: float


VOICE: dict[Kind, Size] = {
    "lstm": Size(128, 2, 1, 0, 0.2),
    "xlstm": Size(128, 3, 4, 0, 0.2),
    "transformer": Size(128, 2, 4, 512, 0.4),
}
"""Table 5. Not told there: an xLSTM's heads, and the dropout of LSTM and xLSTM, which is Mamba's here."""
WORDS: dict[Kind, Size] = {
    "lstm": Size(512, 2, 1, 0, 0.0),
    "xlstm": Size(256, 2, 4, 0, 0.0),
    "transformer": Size(256, 3, 8, 1024, 0.0),
}
"""Table 7. Not told there: an xLSTM's heads, a Transformer's feed-forward part (four times its width, as for the voice),
any dropout (Mamba's)."""


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

    streams = "live"

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

    streams = "live"

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


class Rival(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Steps of X numbers through layers of another kind; a linear layer before all but an LSTM, which has its own."""

    def __init__(self, kind: Kind, given: int, size: Size) -> None:
        super().__init__()
        hidden, layers, heads, feed_forward, drop = size
        self.enter: nn.Module = nn.Identity() if kind == "lstm" else nn.Linear(given, hidden)
        self.layers: Any
        if kind == "lstm":
            self.layers = Lstm(given, hidden, layers, bidirectional=True, drop=drop)
        elif kind == "xlstm":
            self.layers = XLstm(hidden, ("s", *("m",) * (layers - 1)), heads, drop=drop)
        else:
            self.layers = Transformer(hidden, layers, heads, feed_forward, norm="post", activation="relu", drop=drop)
        self.width, self.streams = self.layers.width, self.layers.streams

    def start(self, rows: int) -> Any:
        """Before the first step; an empty tuple where all of a row is heard at once."""
        return self.layers.start(rows)

    def forward(self, x_BSX: Tensor, length_B: Tensor, state: Any) -> tuple[Tensor, Any]:
        y_BSD, state = self.layers(self.enter(x_BSX), length_B, state)
        return y_BSD, state


def voice_encoder(
    kind: Kind, given: int, width: int, *, mode: Mode, hidden: int, layers: int, drop: float | None
) -> Encoder:
    """Of frames of `given` numbers; `width`: a Mamba's. Of the rest 0, or no drop, means as published."""
    if kind == "mamba":
        mamba: Encoder = AudioMamba(given, width, layers or 2, mode=mode, drop=0.2 if drop is None else drop)
        return mamba
    return _rival(kind, given, _sized(VOICE[kind], hidden, layers, drop))


def words_encoder(
    kind: Kind, given: int, inner: int, *, mode: Mode, hidden: int, layers: int, drop: float | None
) -> Encoder:
    """Of words of `given` numbers; `inner`: channels within a Mamba. Of the rest 0, or no drop, means as published."""
    if kind == "mamba":
        mamba: Encoder = TextMamba(given, inner, layers or 2, mode=mode, drop=drop or 0.0)
        return mamba
    return _rival(kind, given, _sized(WORDS[kind], hidden, layers, drop))


def _sized(size: Size, hidden: int, layers: int, drop: float | None) -> Size:
    hidden = hidden or size.hidden
    # the feed-forward part is as many times its width as published
    feed_forward = size.feed_forward * hidden // size.hidden
    return Size(hidden, layers or size.layers, size.heads, feed_forward, size.drop if drop is None else drop)


def _rival(kind: Kind, given: int, size: Size) -> Encoder:
    if size.hidden % size.heads:
        raise GivenError(
            f"{kind}: width {size.hidden} cannot be shared by its {size.heads} heads; give a multiple of it"
        )
    rival: Encoder = Rival(kind, given, size)
    return rival
