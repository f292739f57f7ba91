"""SERE (arXiv 2604.07417): frames beside how fast pitch, loudness, timbre and brightness change, and what resonates in them.

Letters: B rows, T frames, X numbers of an encoder's frame, K = 4 dynamic features, D channels, H heads.

    speech frames -> 256 = h_t -------------------------------- \\
                       \\ gate for each feature                     z_t -> mean -> linear -> logits
    dynamics -> steps over the usual step -> times the gate = d_t /

Here is what answers. Few labelled clips of one language teach it another one's unlabelled speech in
`clser.models.sere_run`; in the ordinary training it learns from labels alone.
What the paper leaves open is a setting here; docs/systems.md says which.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.nn import functional

from clser.models.encoders.hub_frames import HUB_SAMPLES, hub_width, is_hub
from clser.models.encoders.speech import FRONTS, SpeechEncoder
from clser.models.errors import GivenError
from clser.models.features import fronts
from clser.models.features.dynamics import FEATURES, averaged, changes, slower
from clser.models.features.fronts import front
from clser.models.features.pitches import F0
from clser.models.features.pitches import SAMPLES as DYNAMICS_SAMPLES
from clser.models.layers.averages import Standard, mean
from clser.models.layers.resonance import Voices, strengths
from clser.models.systems import About, Streams
from clser.models.tensors import Sequences

ABOUT = About("SERE: dynamics beside speech frames, resonance between languages", "arXiv 2604.07417")

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Seconds = Annotated[float, Meta(gt=0)]
Domain = Literal["source", "target"]


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Every choice."""

    speech: str = "own"
    """own: our encoder, trained along. hub:NAME: frames of a pretrained one. Or one of our fronts, such as mfcc_40_20."""
    speech_width: Annotated[int, Meta(ge=0)] = 0
    """How wide: of our own 0 means 128; of a pretrained one 0 asks its checkpoint."""
    unlabelled: str = ""
    """Another encoder, for speech without labels, named likewise; the paper has one for each language. Empty: the same."""
    unlabelled_width: Annotated[int, Meta(ge=0)] = 0
    answer: Literal["unlabelled", "labelled", "both"] = "unlabelled"
    """Which encoder's frames are answered from, where there are two; the paper hears the target by the unlabelled one's."""
    f0: F0 = "own"
    """Who tracks the pitch: our tracker, CREPE as published (full or tiny) or SwiftF0, which are packages of their own."""
    dynamics: bool = True
    gate: Literal["feature", "frame", "none"] = "feature"
    """feature: a gate for each (eq. 2). frame: one for all four. none: steps as they are."""
    gate_bias: float = 0.0
    """Where b of eq. 2 starts: below zero, dynamics come in softly."""
    alpha: Literal["learnt", "equal"] = "learnt"
    """What each feature counts in the strength (eq. 3), never below zero. It starts equal, and labels alone never move it."""
    width: Count = 256
    every: Count = 1
    """So many frames are averaged into one before anything else: resonance costs by their square."""
    drop: Share = 0.1
    window_s: Seconds = 4.0
    hop_s: Seconds = 1.0
    """Live: an answer every `hop_s` over the last `window_s`."""


class Path(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """An encoder's frames to h_BTD. What is usual in its frames is known of the source and of the target apart."""

    def __init__(self, name: str, width: int, config: Config) -> None:
        super().__init__()
        self.name, self.every = name, config.every
        self.encoder: SpeechEncoder | None = None
        if name == "own":
            self.encoder = SpeechEncoder(width or 128, drop=config.drop)
            self.fronts: tuple[str, ...] = FRONTS
            self.samples, wide = self.encoder.frame_samples, self.encoder.width
        elif is_hub(name):
            self.fronts, self.samples, wide = (name,), HUB_SAMPLES, hub_width(name, width)
        else:
            own = front(name)
            self.fronts, self.samples, wide = (name,), own.samples, own.width
        self.usual = nn.ModuleDict({"source": Standard(wide), "target": Standard(wide)})
        self.project, self.norm = nn.Linear(wide, config.width), nn.LayerNorm(config.width)

    def coarse(self, given: Mapping[str, Sequences]) -> dict[str, Sequences]:
        """What it is given, averaged over `every` frames; our own encoder must hear all."""
        if self.encoder is not None:
            return {name: given[name] for name in self.fronts}
        return {self.name: Sequences(*averaged(*given[self.name], self.every))}

    def fit_inputs(self, coarse: Mapping[str, Sequences], domains: Sequence[str]) -> None:
        """Takes from a large batch what is usual there."""
        if self.encoder is not None:  # its frames are normed already
            self.encoder.fit_inputs(coarse)
            return
        for domain in domains:
            self.usual[domain].fit(coarse[self.name])

    def forward(self, coarse: Mapping[str, Sequences], domain: Domain) -> Sequences:
        if self.encoder is None:
            x_BTX, length_B = coarse[self.name]
        else:
            frames = coarse[FRONTS[0]]
            heard_BTX, _ = self.encoder(coarse, self.encoder.start(frames.length_B.shape[0]))
            x_BTX, length_B = averaged(heard_BTX, frames.length_B, self.every)
        return Sequences(self.norm(self.project(self.usual[domain](x_BTX))), length_B)


class Sere(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """One answer to a whole recording, or to a window of it."""

    words = ""
    streams: Streams = "window"

    def __init__(self, config: Config, heads: Sequence[str]) -> None:
        super().__init__()
        _check(config)
        self.heads, self.every, self.gated = tuple(heads), config.every, config.gate
        self.window_s, self.hop_s, self.said = config.window_s, config.hop_s, config.answer
        self.paths = nn.ModuleDict({"labelled": Path(config.speech, config.speech_width, config)})
        if config.unlabelled:
            self.paths["unlabelled"] = Path(config.unlabelled, config.unlabelled_width, config)
        self.dynamics = "" if not config.dynamics else "dynamics" if config.f0 == "own" else f"dynamics_{config.f0}"
        named = [name for path in self.paths.values() for name in path.fronts]
        self.fronts = tuple(dict.fromkeys((*named, *((self.dynamics,) if self.dynamics else ()))))
        self.frame_samples = max(path.samples for path in self.paths.values())
        more = len(FEATURES) if config.dynamics else 0
        self.gate: nn.Linear | None = None
        if config.dynamics and config.gate != "none":
            self.gate = nn.Linear(config.width, more if config.gate == "feature" else 1)
            nn.init.constant_(self.gate.bias, config.gate_bias)
        counts = torch.full((len(FEATURES),), _INVERSE_SOFTPLUS)
        if config.dynamics and config.alpha == "learnt":
            self.alpha_K = nn.Parameter(counts)
        else:
            self.register_buffer("alpha_K", counts)
        self.width = config.width + more
        self.drop = nn.Dropout(config.drop)
        self.answer = nn.Linear(self.width, len(self.heads))

    def start(self, rows: int) -> Any:
        """Nothing is carried."""
        return ()

    def fit_inputs(self, given: Mapping[str, Sequences]) -> None:
        """Takes from a large batch what the inputs' z-scores are to be, of source and target alike."""
        self.fit_domain(self.coarse(given), ("source", "target"))

    def fit_domain(self, coarse: Mapping[str, Sequences], domains: Sequence[str]) -> None:
        """The same of one domain, from unlabelled speech of it."""
        for path in self.paths.values():
            path.fit_inputs(coarse, domains)

    def forward(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None = None) -> tuple[Tensor, Any]:
        e_BD = self.embedded(self.coarse(given), self.said, "target")
        return self.answer(self.drop(e_BD))[:, None], state

    def embedded(self, coarse: Mapping[str, Sequences], through: str, domain: Domain) -> Tensor:
        """e [B, D]: the mean of z_t by `labelled`, `unlabelled`, or of `both`."""
        asked = tuple(self.paths) if through == "both" else (through,)
        each = [self.heard(coarse, one, domain) for one in asked]
        return torch.stack([mean(voices.z_NSD, voices.length_N) for voices in each]).mean(0)

    def coarse(self, given: Mapping[str, Sequences]) -> dict[str, Sequences]:
        """What is given, at the pace at which it is compared. It can be kept: nothing learnt is in it."""
        found: dict[str, Sequences] = {}
        for path in self.paths.values():
            found |= path.coarse(given)
        if self.dynamics:
            every = self.every * self.frame_samples // DYNAMICS_SAMPLES
            found[self.dynamics] = Sequences(*slower(*given[self.dynamics], every))
        return found

    def heard(self, coarse: Mapping[str, Sequences], through: str, domain: Domain) -> Voices:
        """z_t = [h_t; d_t] and the strength b_t of each frame."""
        path = self.paths[through if through in self.paths else "labelled"]
        h_BTD, length_B = path(coarse, domain)
        if not self.dynamics:
            return Voices(h_BTD, h_BTD.new_zeros(h_BTD.shape[:2]), length_B)
        s_BTK, told_B = coarse[self.dynamics]
        step_BTK = _as_long(changes(s_BTK, told_B), h_BTD)  # eq. 1
        if self.gate is not None:
            step_BTK = torch.sigmoid(self.gate(h_BTD)) * step_BTK  # eq. 2: w_t = sigmoid(W h_t + b), d_t = w_t step_t
        b_BT = strengths(step_BTK, functional.softplus(self.alpha_K))
        return Voices(torch.cat((h_BTD, step_BTK), 2), b_BT, length_B)  # eq. 2: z_t = [h_t; d_t]


_INVERSE_SOFTPLUS = -1.2586648  # softplus of it is 1/4


def _as_long(x_BTK: Tensor, like_BTD: Tensor) -> Tensor:
    """Zeros behind, or cut: two fronts may differ by a frame at the end of a recording."""
    return functional.pad(x_BTK, (0, 0, 0, like_BTD.shape[1] - x_BTK.shape[1]))


def _check(config: Config) -> None:
    for setting, name in (("speech", config.speech), ("unlabelled", config.unlabelled)):
        known = name == "own" or is_hub(name) or name in fronts.FRONTS
        if not known and not (setting == "unlabelled" and name == ""):
            raise GivenError(
                f"{setting} {name!r}: give own, hub:NAME for a pretrained encoder, or one of our fronts: "
                f"{', '.join(fronts.FRONTS)}"
            )
    if config.unlabelled and config.unlabelled == config.speech:
        raise GivenError(f"unlabelled {config.unlabelled!r} is what speech is: leave it empty for one encoder")
    paces = {_samples(name) for name in (config.speech, config.unlabelled) if name}
    if len(paces) > 1 or any(pace % DYNAMICS_SAMPLES for pace in paces):
        raise GivenError(
            f"speech {config.speech!r} and unlabelled {config.unlabelled!r} must have frames of one length, of 20 ms or "
            "a multiple: own has 40 ms, hub:NAME and mfcc_40_20 have 20 ms"
        )


def _samples(name: str) -> int:
    if name == "own":
        return SpeechEncoder.frame_samples
    return HUB_SAMPLES if is_hub(name) else front(name).samples


def build(config: Config, heads: Sequence[str]) -> Sere:
    """The system, untrained."""
    return Sere(config, heads)
