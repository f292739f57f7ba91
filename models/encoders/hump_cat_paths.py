"""The three paths into HuMP-CAT: frames of a speech encoder, a sequence of cepstra, functionals of the whole clip.

Letters: B rows, S hops, T steps of a repeated clip, U steps after the convolution, K layers of the encoder, D channels, X
numbers of a frame, F functionals.
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import nn

from clser.models.encoders.hub_frames import HUB_SAMPLES, hub_layers, hub_width, is_hub
from clser.models.encoders.speech import FRONTS, SpeechEncoder
from clser.models.errors import GivenError
from clser.models.features.disvoice_track import WIDTH as DISVOICE_WIDTH
from clser.models.features.disvoice_track import disvoice_of
from clser.models.features.fronts import front
from clser.models.features.manner import WIDTH as MANNER_WIDTH
from clser.models.features.whole_manner import WholeManner
from clser.models.layers.averages import Standard, mean
from clser.models.layers.cat import KERNEL, LayerAttention, StridedConv, repeated
from clser.models.layers.recurrent import Lstm
from clser.models.tensors import Sequences

SEQUENCE_OF = MappingProxyType({"mfcc": "mfcc_40_20", "lpcc": "lpcc_40_20", "spectrogram": "spectrogram_40_20"})
FRONTS_OF = MappingProxyType(
    {"prosody": ("disvoice_track",), "manner": FRONTS, **{kind: (name,) for kind, name in SEQUENCE_OF.items()}}
)
FUNCTIONALS = MappingProxyType({"prosody": DISVOICE_WIDTH, "manner": MANNER_WIDTH})
"""How many there are of each kind."""
OWN_LAYERS = (1, 2)
FARTHEST = 4.0
"""Deviations beyond which a functional tells no more."""


class Speech(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Frames of an encoder to R_h [B, U, D]; all U steps, or none of a row that has no sound.

    attention_hidden: of the attention over the layers; 0: their mean.
    """

    def __init__(
        self, speech: str, layer_width: int, width: int, steps: int, *, attention_hidden: int, drop: float
    ) -> None:
        super().__init__()
        self.steps = steps
        self.own: SpeechEncoder | None = None
        if is_hub(speech):
            self.name, layers = speech, hub_layers(speech)
            layer_width = layer_width or hub_width(speech) // layers
            self.standard = Standard(layers * layer_width)
        else:
            self.own = SpeechEncoder(layer_width or 128, drop=drop)
            self.name, layers, layer_width = FRONTS[0], len(OWN_LAYERS), self.own.width
        self.layers = layers
        if layer_width < KERNEL[1]:
            raise GivenError(f"speech frames of {layer_width} numbers: the convolution takes {KERNEL[1]} at least")
        weighed = attention_hidden and layers > 1
        self.weigh = LayerAttention(layers, layer_width, attention_hidden) if weighed else None
        self.conv = StridedConv(layer_width)
        self.enter, self.norm = nn.Linear(self.conv.width, width), nn.LayerNorm(width)

    def forward(self, given: Mapping[str, Sequences]) -> Sequences:
        frames = self._frames(given)
        if self.weigh is not None:
            x_BTD = self.weigh(frames.x_BTD)
        else:
            x_BTD = frames.x_BTD.reshape(*frames.x_BTD.shape[:2], self.layers, -1).mean(2)
        x_BTD, length_B = repeated(Sequences(x_BTD, frames.length_B), self.steps)
        x_BUD = self.norm(self.enter(self.conv(x_BTD)))
        return Sequences(x_BUD, torch.where(length_B > 0, x_BUD.shape[1], 0))

    def fit(self, given: Mapping[str, Sequences]) -> None:
        """Takes what is usual from a large batch."""
        if self.own is not None:
            self.own.fit_inputs(given)
        else:
            self.standard.fit(given[self.name])

    def _frames(self, given: Mapping[str, Sequences]) -> Sequences:
        """Every 20 ms the layers side by side."""
        x_BTX, length_B = given[self.name]
        if self.own is None:
            return Sequences(self.standard(x_BTX), length_B)
        heard = self.own.listen(given)
        both_BTX = torch.cat([heard[k] for k in OWN_LAYERS], 2)
        times = self.own.frame_samples // HUB_SAMPLES
        return Sequences(both_BTX.repeat_interleave(times, 1), length_B * times)


class Cepstra(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A repeated sequence of frames to one step [B, 1, D]: forwards and backwards LSTM, then the mean."""

    def __init__(self, name: str, width: int, steps: int) -> None:
        super().__init__()
        self.name, self.steps = name, steps
        self.standard = Standard(front(name).width)
        self.lstm = Lstm(front(name).width, width // 2, bidirectional=True)

    def forward(self, given: Mapping[str, Sequences]) -> Sequences:
        x_BTX, length_B = repeated(
            Sequences(self.standard(given[self.name].x_BTD), given[self.name].length_B), self.steps
        )
        y_BTD, _ = self.lstm(x_BTX, length_B)
        return Sequences(mean(y_BTD, length_B)[:, None], (length_B > 0).long())

    def fit(self, given: Mapping[str, Sequences]) -> None:
        """Takes what is usual from a large batch."""
        self.standard.fit(given[self.name])


class Functionals(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """The clip as it is, not repeated, to one step [B, 1, F] of z-scores."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.name = FRONTS_OF[kind][0]
        self.manner = WholeManner() if kind == "manner" else None
        self.standard = Standard(FUNCTIONALS[kind])

    def forward(self, given: Mapping[str, Sequences]) -> Sequences:
        f_B1F, there_B = self._plain(given)
        return Sequences(self.standard(f_B1F).clamp(-FARTHEST, FARTHEST), there_B)

    def fit(self, given: Mapping[str, Sequences]) -> None:
        """Takes what is usual from a large batch."""
        if self.manner is not None:
            self.manner.fit(given)
        self.standard.fit(self._plain(given))

    def _plain(self, given: Mapping[str, Sequences]) -> Sequences:
        x_BSX, length_B = given[self.name]
        f_BF = disvoice_of(x_BSX, length_B) if self.manner is None else self.manner(given)
        return Sequences(f_BF[:, None], (length_B > 0).long())
