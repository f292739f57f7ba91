"""ACMF-Net (Cen and Gai 2025): a speech encoder, cepstra and prosody, each let through by a gate that sees all three.

Letters: B rows, S steps of a source, T frames of 200 ms, K sources, D channels, H heads.

    speech frames -> mean                                   -> 256 \\
    39 cepstra every 10 ms -> positions -> Transformer -> mean -> 256  -> gates -> sum -> MLP -> logits
    prosody of 200 ms, every 100 ms -> the same                -> 256 /

What the paper leaves open is a setting here; docs/systems.md says which.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.nn import functional

from clser.models.encoders.hub_frames import HUB_SAMPLES, hub_width, is_hub
from clser.models.encoders.speech import FRONTS, SpeechEncoder
from clser.models.errors import GivenError
from clser.models.features.fronts import front
from clser.models.layers.averages import MeanState, Standard, mean, mean_start, running_mean
from clser.models.layers.gating import SigmoidGates
from clser.models.layers.transformer import Transformer
from clser.models.systems import About, Streams
from clser.models.tensors import Sequences, picked

ABOUT = About("ACMF-Net: speech encoder, cepstra and prosody behind gates", "Cen and Gai 2025, preprints 202512.2705")

MFCC, PROSODY = "mfcc_25_10", "prosody_windows"
FRAME_SAMPLES = 3_200  # the least that the speech encoder's 40 ms and the prosody windows' 100 ms both divide

Path = Literal["transformer", "mean", "none"]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Every choice."""

    speech: str = "own"
    """own: our streaming encoder, trained along. hub:NAME: frames of a pretrained one. none: left out."""
    speech_width: Annotated[int, Meta(ge=0)] = 0
    """How wide: of our own 0 means 128; of a pretrained one 0 asks its checkpoint."""
    mfcc: Path = "transformer"
    prosody: Path = "transformer"
    """transformer: as published. mean: without an encoder. none: left out."""
    fusion: Literal["gates", "concat", "mean"] = "gates"
    attention: Literal["full", "causal"] = "full"
    """full: as published, over a whole recording. causal: each step sees `reach` before it, and it streams."""
    mfcc_reach: Count = 64
    prosody_reach: Count = 20
    width: Count = 256
    encoder_width: Count = 128
    layers: Count = 2
    attention_heads: Count = 4
    feed_forward: Count = 512
    gate_hidden: Count = 128
    hidden: Count = 128
    drop: Share = 0.1
    source_drop: Share = 0.1
    """How often training leaves a source out, so that a missing one is nothing new. 0: as published."""
    window_s: Seconds = 4.0
    hop_s: Seconds = 1.0
    """Live, where attention is full: an answer every `hop_s` over the last `window_s`."""


ABLATIONS = MappingProxyType(
    {
        "full": {},
        "no_gate": {"fusion": "concat"},
        "no_mfcc_encoder": {"mfcc": "mean"},
        "no_prosody_encoder": {"prosody": "mean"},
        "neither": {"mfcc": "mean", "prosody": "mean"},
        "speech_only": {"mfcc": "none", "prosody": "none", "fusion": "mean"},
        "mfcc_only": {"speech": "none", "prosody": "none", "fusion": "mean"},
        "prosody_only": {"speech": "none", "mfcc": "none", "fusion": "mean"},
    }
)
"""The settings of the paper's table 2, of the speech encoder alone in its table 1, and of each other source alone."""


class SourceState(NamedTuple):
    """Of one source. Zeros: no step yet."""

    encoder: Any
    mean: MeanState


class Source(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """One sequence to one vector: the mean over time, of a Transformer's steps or of what was given."""

    def __init__(self, width: int, path: Path, config: Config, reach: int) -> None:
        super().__init__()
        self.standard = Standard(width)
        self.causal = config.attention == "causal"
        self.width = config.encoder_width if path == "transformer" else width
        self.encoder: Transformer | None = None
        if path == "transformer":
            self.enter = nn.Linear(width, self.width)
            self.encoder = Transformer(
                self.width, config.layers, config.attention_heads, config.feed_forward, mode=config.attention,
                reach=reach, drop=config.drop,
            )  # fmt: skip

    def start(self, rows: int) -> SourceState:
        """Before the first step."""
        encoder = self.encoder.start(rows) if self.encoder is not None else ()
        return SourceState(encoder, mean_start(self.standard.mean_D, rows, self.width))

    def forward(self, given: Sequences, encoder: Any) -> tuple[Tensor, Any]:
        """[B, S, D] and the encoder's state."""
        x_BSD = self.standard(given.x_BTD)
        if self.encoder is None:
            return x_BSD, encoder
        y_BSD, encoder = self.encoder(self.enter(x_BSD), given.length_B, encoder)
        return y_BSD, encoder


class Project(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """To the width that all sources share: they are added up."""

    def __init__(self, width: int, to: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(width, to), nn.LayerNorm(to)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, to]."""
        return self.norm(self.linear(x_BTD))


class AcmfNet(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Full attention: one answer to a whole recording. Causal: an answer every 200 ms, and a state."""

    words = ""
    frame_samples = FRAME_SAMPLES

    def __init__(self, config: Config, heads: Sequence[str]) -> None:
        super().__init__()
        self.heads, self.fusion, self.source_drop = tuple(heads), config.fusion, config.source_drop
        self.window_s, self.hop_s = config.window_s, config.hop_s
        self.causal = config.attention == "causal"
        self.own = config.speech == "own"
        _check(config)
        self.streams: Streams = "exactly" if self.causal else "window"
        self.encoder: SpeechEncoder | None = None
        self.front_of: dict[str, str] = {}
        self.source_of = nn.ModuleDict()
        if config.speech != "none":
            self._make_speech(config)
        for name, of, path, reach in (
            ("mfcc", MFCC, config.mfcc, config.mfcc_reach), ("prosody", PROSODY, config.prosody, config.prosody_reach)
        ):  # fmt: skip
            if path != "none":
                self.front_of[name] = of
                self.source_of[name] = Source(front(of).width, path, config, reach)
        self.fronts = tuple(dict.fromkeys((*(FRONTS if self.own else ()), *self.front_of.values())))
        self.steps = {name: FRAME_SAMPLES // _samples(name) for name in self.fronts}
        sources = len(self.front_of)
        self.project = nn.ModuleList(Project(source.width, config.width) for source in self.source_of.values())
        self.gate = SigmoidGates(config.width, sources, config.gate_hidden) if self.fusion == "gates" else None
        fused = config.width * (sources if self.fusion == "concat" else 1)
        self.answer = nn.Sequential(
            nn.Linear(fused, config.hidden), nn.ReLU(), nn.Dropout(config.drop),
            nn.Linear(config.hidden, len(self.heads)),
        )  # fmt: skip

    def _make_speech(self, config: Config) -> None:
        if self.own:
            self.encoder = SpeechEncoder(config.speech_width or 128, drop=config.drop)
            speech, width = FRONTS[0], self.encoder.width
        else:
            speech, width = config.speech, hub_width(config.speech, config.speech_width)
        self.front_of["speech"] = speech
        self.source_of["speech"] = Source(width, "mean", config, 0)

    def start(self, rows: int) -> Any:
        """Before the first frame; an empty tuple where attention is full."""
        if not self.causal:
            return ()
        own = self.encoder.start(rows) if self.encoder is not None else ()
        return (own, *(source.start(rows) for source in self.source_of.values()))

    def fit_inputs(self, given: Mapping[str, Sequences]) -> None:
        """Takes from a large batch what the inputs' z-scores are to be."""
        if self.encoder is not None:
            self.encoder.fit_inputs(given)
        for name, of in self.front_of.items():
            if not (name == "speech" and self.own):  # our encoder's frames are normed already
                self.source_of[name].standard.fit(given[of])

    def forward(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None = None) -> tuple[Tensor, Any]:
        x_BTKD, present_BTK, state = self._sources(given, state)
        if at_BK is not None and self.causal:
            x_BTKD, present_BTK = picked(x_BTKD, at_BK), picked(present_BTK, at_BK)
        fused_BTD, _ = self._fused(x_BTKD, self._dropped(present_BTK))
        return self.answer(fused_BTD), state

    def gates(self, given: Mapping[str, Sequences]) -> Tensor:
        """[B, K]: how far each source of `front_of` was let through, after all that was given. To study their variance."""
        if self.gate is None:
            raise GivenError(f"fusion {self.fusion!r} has no gates: build the system with fusion 'gates'")
        rows = given[self.fronts[0]].length_B.shape[0]
        x_BTKD, present_BTK, _ = self._sources(given, self.start(rows))
        return self._fused(x_BTKD[:, -1:], present_BTK[:, -1:])[1][:, 0]

    def _sources(self, given: Mapping[str, Sequences], state: Any) -> tuple[Tensor, Tensor, Any]:
        """Each source's mean so far [B, T, K, D], whether there was any of it [B, T, K], and the state."""
        if not torch.jit.is_tracing():  # live, every front gives whole frames
            given = _whole_frames(given, self.steps)
        before = state if self.causal else (self._own_start(given), *(None for _ in self.front_of))
        speech, own = self._speech(given, before[0])
        vectors, present, states = [], [], [own]
        for (name, of), project, was in zip(self.front_of.items(), self.project, before[1:], strict=True):
            source = self.source_of[name]
            sequence = speech if name == "speech" and speech is not None else given[of]
            y_BSD, encoder = source(sequence, was.encoder if was else ())
            if was:
                mean_BTD, seen_BT1, sums = running_mean(y_BSD, sequence.length_B, was.mean, self.steps[of])
                states.append(SourceState(encoder, sums))
            else:
                mean_BTD, seen_BT1 = mean(y_BSD, sequence.length_B)[:, None], sequence.length_B[:, None, None]
            vectors.append(project(mean_BTD))
            present.append(seen_BT1[..., 0] > 0)
        return torch.stack(vectors, 2), torch.stack(present, 2), tuple(states) if self.causal else state

    def _own_start(self, given: Mapping[str, Sequences]) -> Any:
        return self.encoder.start(given[FRONTS[0]].length_B.shape[0]) if self.encoder is not None else ()

    def _speech(self, given: Mapping[str, Sequences], state: Any) -> tuple[Sequences | None, Any]:
        """The frames whose mean is f_H."""
        if "speech" not in self.front_of:
            return None, state
        speech = given[self.front_of["speech"]]
        if self.encoder is None:
            return speech, state
        y_BTD, state = self.encoder(given, state)
        return Sequences(y_BTD, speech.length_B), state

    def _dropped(self, present_BTK: Tensor) -> Tensor:
        """While training: some sources left out, never all of a row."""
        if not (self.training and self.source_drop):
            return present_BTK
        rows, _, sources = present_BTK.shape
        kept_B1K = torch.rand(rows, 1, sources, device=present_BTK.device) >= self.source_drop
        left_BTK = present_BTK & kept_B1K
        return torch.where(left_BTK.any(2, keepdim=True), left_BTK, present_BTK)

    def _fused(self, x_BTKD: Tensor, present_BTK: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D], and the gates [B, T, K]."""
        if self.gate is not None:
            # g_k = sigmoid(MLP_k([f_H; f_M; f_P])), f = sum of g_k f_k
            fused_ND, gate_NK = self.gate(x_BTKD.flatten(0, 1), present_BTK.flatten(0, 1))
            return _as(fused_ND, x_BTKD), _as(gate_NK, x_BTKD)
        x_BTKD = x_BTKD.masked_fill(~present_BTK[..., None], 0.0)
        share_BTK = present_BTK.to(x_BTKD.dtype)
        if self.fusion == "concat":
            return x_BTKD.flatten(2), share_BTK
        share_BTK = share_BTK / share_BTK.sum(2, keepdim=True).clamp_min(1.0)
        return (share_BTK[..., None] * x_BTKD).sum(2), share_BTK


def _as(x_ND: Tensor, like_BTKD: Tensor) -> Tensor:
    return x_ND.reshape(like_BTKD.shape[0], -1, x_ND.shape[1])


def _samples(name: str) -> int:
    return HUB_SAMPLES if is_hub(name) else front(name).samples


def _whole_frames(given: Mapping[str, Sequences], steps: Mapping[str, int]) -> dict[str, Sequences]:
    """The same, padded to a common number of frames, one at least: a recording may end within a frame, or lack a source."""
    frames = max(1, *(-(-given[name].x_BTD.shape[1] // each) for name, each in steps.items()))
    return {
        name: Sequences(functional.pad(x_BTD, (0, 0, 0, frames * steps[name] - x_BTD.shape[1])), length_B)
        for name, (x_BTD, length_B) in ((name, given[name]) for name in steps)
    }


def _check(config: Config) -> None:
    if config.speech not in ("own", "none") and not is_hub(config.speech):
        raise GivenError(f"speech {config.speech!r}: give own, none, or hub:NAME for a pretrained encoder")
    if {config.speech, config.mfcc, config.prosody} == {"none"}:
        raise GivenError("speech, mfcc and prosody are all none: leave one in")
    if config.attention == "causal" and is_hub(config.speech):
        raise GivenError(
            "attention causal streams, which a pretrained speech encoder does not: give speech own, or full"
        )
    if config.encoder_width % config.attention_heads:
        raise GivenError(f"encoder_width {config.encoder_width} cannot be shared by {config.attention_heads} heads")


def build(config: Config, heads: Sequence[str]) -> AcmfNet:
    """The system, untrained."""
    return AcmfNet(config, heads)
