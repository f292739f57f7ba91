"""HuMP-CAT (Zhao et al. 2025): a speech encoder, cepstra and prosody that ask one another, and a loss with a margin.

Letters: B rows, T steps of a repeated clip, U steps after the convolution, K layers of the encoder, D channels, X numbers of
a frame, F functionals, Y numbers that are answered from, H heads.

    speech frames of K layers -> attention over the layers -> 10 x 18 convolution -> R_h \\
                                                                                          CAT -> R -> attention -> mean and
    prosody of the whole clip -> two linear layers -> R_p \\                              /          variance -> logits
                                                          CAT -> R_pm -------------------
    39 cepstra every 20 ms -> Bi-LSTM -> mean -> R_m      /

Clips are repeated to 7 s. What the paper leaves open is a setting here; docs/systems.md says which.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.nn import functional

from clser.models.encoders.hub_frames import HUB_SAMPLES, is_hub
from clser.models.encoders.hump_cat_paths import FRONTS_OF, FUNCTIONALS, SEQUENCE_OF, Cepstra, Functionals, Speech
from clser.models.encoders.speech import FRONTS
from clser.models.errors import GivenError
from clser.models.features.constants import FRAME_SAMPLES, SAMPLE_RATE_HZ
from clser.models.features.fronts import front
from clser.models.layers.cat import KERNEL, STRIDE, Cat, mean_and_variance
from clser.models.layers.transformer import Transformer
from clser.models.losses import AmSoftmax
from clser.models.systems import About, Streams
from clser.models.tensors import Sequences

ABOUT = About(
    "HuMP-CAT: speech encoder, cepstra and prosody with attention across", "Zhao et al. 2025, arXiv 2501.10408"
)

PRIOR_CLIPS = 3.0
"""How many utterances the prior counts for beside those of the speaker."""

Hand = Literal["prosody", "manner", "mfcc", "lpcc", "spectrogram"]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Positive = Annotated[float, Meta(gt=0)]


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Every choice."""

    speech: str = "own"
    """own: our streaming encoder, trained along. hub:NAME@1,9: these layers of a pretrained one. none: left out."""
    speech_width: Annotated[int, Meta(ge=0)] = 0
    """Of one layer: of our own 0 means 128; of a pretrained one 0 asks its checkpoint."""
    layer_attention: bool = True
    """False: the layers' mean."""
    hand: tuple[Hand, ...] = ("prosody", "mfcc")
    """What is not from the encoder, in the order in which CAT takes it. prosody: DisVoice's 103. manner: our own functionals.
    The others are sequences. The paper tries all pairs; one alone goes past the first CAT; none is the encoder alone."""
    usual: bool = False
    """Functionals against the speaker's usual ones, where he was heard before; ours, see docs/systems.md."""
    loss: Literal["am_softmax", "cross_entropy"] = "am_softmax"
    scale: Positive = 30.0
    margin: Annotated[float, Meta(ge=0)] = 0.35
    clip_s: Positive = 7.0
    """Shorter clips are repeated to this, longer ones cut; live it is the window."""
    hop_s: Positive = 1.0
    """Live, an answer so often."""
    width: Count = 32
    layer_hidden: Count = 64
    functionals_hidden: Count = 64
    layers: Count = 2
    attention_heads: Count = 4
    feed_forward: Count = 64
    drop: Share = 0.1
    functionals_drop: Share = 0.1
    source_drop: Share = 0.1
    """How often training leaves a source out, so that a missing one is nothing new. 0: as published."""


PAIRS = MappingProxyType(
    {
        "prosody_mfcc": ("prosody", "mfcc"),
        "prosody_lpcc": ("prosody", "lpcc"),
        "prosody_spectrogram": ("prosody", "spectrogram"),
        "mfcc_lpcc": ("mfcc", "lpcc"),
        "mfcc_spectrogram": ("mfcc", "spectrogram"),
        "lpcc_spectrogram": ("lpcc", "spectrogram"),
    }
)
"""The paper's table IV: hand-crafted features two by two, without the encoder (`speech: none`)."""


class HumpCat(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """One answer to all that was given, up to `clip_s`. With `usual` it is the better for a speaker who was heard before."""

    words = ""
    streams: Streams = "window"
    frame_samples = FRAME_SAMPLES

    def __init__(self, config: Config, heads: Sequence[str]) -> None:
        super().__init__()
        _check(config)
        self.heads, self.source_drop = tuple(heads), config.source_drop
        self.window_s, self.hop_s = config.clip_s, config.hop_s
        steps = round(config.clip_s * SAMPLE_RATE_HZ / HUB_SAMPLES)
        self.source_of = nn.ModuleDict()
        if config.speech != "none":
            hidden = config.layer_hidden if config.layer_attention else 0
            self.source_of["speech"] = Speech(
                config.speech, config.speech_width, config.width, steps, attention_hidden=hidden, drop=config.drop
            )
        for kind in config.hand:
            functionals = kind in FUNCTIONALS
            self.source_of[kind] = Functionals(kind) if functionals else Cepstra(SEQUENCE_OF[kind], config.width, steps)
        speech = () if config.speech == "none" else (config.speech,) if is_hub(config.speech) else FRONTS
        self.fronts = tuple(dict.fromkeys((*speech, *(name for kind in config.hand for name in FRONTS_OF[kind]))))
        self.told = tuple(kind for kind in config.hand if kind in FUNCTIONALS)
        self.usual = config.usual
        self.speaker_numbers = 1 + sum(FUNCTIONALS[kind] for kind in self.told) if config.usual else 0
        self.sizes = {name: _size(name, config, steps) for name in self.source_of}
        times = 2 if config.usual else 1
        self.of_functionals = nn.ModuleDict(
            {
                kind: nn.Sequential(
                    nn.Dropout(config.functionals_drop), nn.Linear(times * FUNCTIONALS[kind], config.functionals_hidden),
                    nn.ReLU(), nn.Dropout(config.functionals_drop), nn.Linear(config.functionals_hidden, config.width),
                )
                for kind in self.told
            }
        )  # fmt: skip
        shape = (config.width, config.attention_heads, config.feed_forward)
        self.cats = nn.ModuleList(Cat(*shape, config.drop) for _ in range(len(self.source_of) - 1))
        # Without positions: behind the steps of time stand the vectors of the whole clip.
        self.attention = Transformer(config.width, config.layers, *shape[1:], drop=config.drop, positions=False)
        self.head: nn.Module = nn.Linear(2 * config.width, len(self.heads))
        self.logit_margin = 0.0
        if config.loss == "am_softmax":
            self.head = AmSoftmax(2 * config.width, len(self.heads), config.scale, config.margin)
            self.logit_margin = config.scale * config.margin

    def start(self, rows: int) -> tuple[()]:
        """Nothing is carried."""
        return ()

    def fit_inputs(self, given: Mapping[str, Sequences]) -> None:
        """Takes from a large batch what the z-scores are to be."""
        given = _whole_frames(given)
        for source in self.source_of.values():
            source.fit(given)

    def forward(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None = None) -> tuple[Tensor, Any]:
        e_B1Y, state = self.hear(given, state, at_BK)
        return self.answer(e_B1Y, e_B1Y.new_zeros(e_B1Y.shape[0], max(1, self.speaker_numbers))), state

    def tell(self, given: Mapping[str, Sequences], at_BK: Tensor) -> Tensor:
        """[B, 1, X] with `usual`: 1 and the functionals. What was given is a whole utterance: `at_BK` changes nothing."""
        given = _whole_frames(given)
        return _told([self.source_of[kind](given) for kind in self.told])

    def hear(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None = None) -> tuple[Tensor, Any]:
        """e_B1Y: with `usual` what is told of the speaker; then each source's steps and whether it is there."""
        given = _whole_frames(given)
        parts = {name: source(given) for name, source in self.source_of.items()}
        there_BN = torch.stack([length_B > 0 for _, length_B in parts.values()], 1).float()
        told = [_told([parts[kind] for kind in self.told])] if self.usual else []
        flat = [x_BTD.reshape(x_BTD.shape[0], 1, -1) for x_BTD, _ in parts.values()]
        return torch.cat((*told, there_BN[:, None], *flat), 2), state

    def answer(self, e_BKY: Tensor, speaker_BX: Tensor) -> Tensor:
        """[B, 1, H], where that is known of the speaker."""
        count = len(self.sizes)
        flat = [steps * width for steps, width in self.sizes.values()]
        _, there_BN, *parts = e_BKY[:, 0].split([self.speaker_numbers, count, *flat], 1)
        there_BN = self._dropped(there_BN > 0.5)
        found, place = [], 1
        for n, (name, (steps, width)) in enumerate(self.sizes.items()):
            x_BTD = parts[n].reshape(-1, steps, width)
            if name in self.of_functionals:
                if self.usual:
                    usual_BF = speaker_BX[:, place : place + width] / (speaker_BX[:, :1] + PRIOR_CLIPS)
                    place += width
                    x_BTD = torch.cat((x_BTD - usual_BF[:, None], usual_BF[:, None]), 2)
                x_BTD = self.of_functionals[name](x_BTD)
            length_B = torch.where(there_BN[:, n], steps, 0)
            found.append(Sequences(x_BTD.masked_fill(~there_BN[:, n, None, None], 0.0), length_B))
        return self._fused(found)[:, None]

    def _fused(self, found: Sequence[Sequences]) -> Tensor:
        """[B, H] of R_h and what is not from the encoder."""
        first = 1 if "speech" in self.sizes else 0
        whole = found[first] if len(found) > first else found[0]
        rest = list(found[first + 1 :])
        for cat, other in zip(self.cats, rest, strict=False):
            whole = cat(whole, other)  # R_pm = CAT(R_p, R_m)
        if first and len(found) > 1:
            whole = self.cats[-1](found[0], whole)  # R = CAT(R_h, R_pm)
        y_BTD, _ = self.attention(whole.x_BTD, whole.length_B)
        logits_BH: Tensor = self.head(mean_and_variance(Sequences(y_BTD, whole.length_B)))
        return logits_BH

    def _dropped(self, there_BN: Tensor) -> Tensor:
        """While training: some sources left out, never all of a row."""
        if not (self.training and self.source_drop):
            return there_BN
        left_BN = there_BN & (torch.rand(there_BN.shape, device=there_BN.device) >= self.source_drop)
        return torch.where(left_BN.any(1, keepdim=True), left_BN, there_BN)


def _size(name: str, config: Config, steps: int) -> tuple[int, int]:
    """Steps and channels of what a source gives."""
    if name == "speech":
        return (steps - KERNEL[0]) // STRIDE[0] + 1, config.width
    return 1, FUNCTIONALS.get(name, config.width)


def _told(parts: Sequence[Sequences]) -> Tensor:
    """[B, 1, X]: 1 and these functionals; zeros of a row without any."""
    there_B11 = (parts[0].length_B > 0).float()[:, None, None]
    return torch.cat((there_B11, *(x_B1F * there_B11 for x_B1F, _ in parts)), 2)


def _whole_frames(given: Mapping[str, Sequences]) -> Mapping[str, Sequences]:
    """Prosody as long as the log-mel bands, where both are there: a recording may end within a frame. Live, none does."""
    if torch.jit.is_tracing() or not set(FRONTS) <= set(given):
        return given
    bands, hops = (given[name] for name in FRONTS)
    missing = bands.x_BTD.shape[1] * (FRAME_SAMPLES // front(FRONTS[1]).samples) - hops.x_BTD.shape[1]
    return {**given, FRONTS[1]: Sequences(functional.pad(hops.x_BTD, (0, 0, 0, missing)), hops.length_B)}


def _check(config: Config) -> None:
    if config.speech not in ("own", "none") and not is_hub(config.speech):
        raise GivenError(f"speech {config.speech!r}: give own, none, or hub:NAME@1,9 for a pretrained encoder")
    if config.speech == "none" and not config.hand:
        raise GivenError("speech is none and hand is empty: leave one in")
    if len(set(config.hand)) < len(config.hand):
        raise GivenError(f"hand {', '.join(config.hand)}: name each but once")
    if config.usual and not set(config.hand) & FUNCTIONALS.keys():
        raise GivenError("usual: there is no prosody and no manner among `hand` to compare with the speaker's")
    if config.width % 2 or config.width % config.attention_heads:
        raise GivenError(f"width {config.width} cannot be shared by {config.attention_heads} heads and two directions")
    if config.clip_s * SAMPLE_RATE_HZ / HUB_SAMPLES < KERNEL[0]:
        raise GivenError(
            f"clip_s {config.clip_s:g}: the convolution takes {KERNEL[0] * HUB_SAMPLES / SAMPLE_RATE_HZ:g} s"
        )


def build(config: Config, heads: Sequence[str]) -> HumpCat:
    """The system, untrained."""
    return HumpCat(config, heads)
