"""What the systems of the cross-lingual bimodal family share (BDCC 9(11):285): encoders, parts, what is missing, weighing.

Letters: B rows, S steps, T frames of 40 ms, D channels, X numbers given, H heads, M models.

    voice -> audio encoder -> 256 \\
                                    fusion -> logits
    words -> text encoder -> 1024 /

`mode` paper or as_released: see docs/systems.md for what the official code does otherwise.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.nn import functional

from clser.models.encoders.family import Encoder, Kind, Mode, voice_encoder, words_encoder
from clser.models.encoders.hub_frames import hub_width, is_hub
from clser.models.encoders.speech import FRONTS
from clser.models.encoders.text import BUCKETS, NUMBERS, HashedWords
from clser.models.errors import GivenError
from clser.models.features.constants import FRAME_SAMPLES
from clser.models.features.fronts import front
from clser.models.layers.averages import MeanState, Standard, mean, mean_start, running_mean
from clser.models.layers.crossing import Crossing
from clser.models.layers.gating import WeightedFusion
from clser.models.layers.graph import GraphCrossing
from clser.models.layers.joining import Joining
from clser.models.systems import WORDS, Streams
from clser.models.tensors import Sequences, picked, real

Count = Annotated[int, Meta(ge=1)]
CountOrNone = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Seconds = Annotated[float, Meta(gt=0)]
Fusion = Literal["biformer", "bigraphformer", "bigatedgraphformer", "bimamba"]
Model = Literal["voice", "words", "both", "biformer", "bigraphformer", "bigatedgraphformer", "bimamba"]


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Every choice."""

    mode: Mode = "paper"
    part: Literal["both", "voice", "words", "wpf"] = "both"
    """both: the fusion. voice, words: one encoder and the mean of its steps. wpf: the models of `wpf_of`, weighed by class."""
    wpf_of: tuple[Model, ...] = ("voice", "words", "both")
    """both: this system's fusion; another's by its name, on the same encoders."""
    voice_encoder: Kind = "mamba"
    words_encoder: Kind = "mamba"
    """Each of the size that tables 5 and 7 give, unless a setting below says otherwise."""
    speech: str = "own"
    """own: log-mel and prosody. hub:NAME: frames of a pretrained encoder."""
    speech_width: CountOrNone = 0
    """How wide a pretrained encoder's frames are; 0 asks its checkpoint."""
    speech_pooled: Count = 1
    """So many of a pretrained encoder's frames become their mean: a shorter sequence. 1: as published."""
    words: str = "hashed"
    """hashed: words by their letters. hub:NAME: what a pretrained encoder makes of its tokens."""
    words_width: CountOrNone = 0
    """Numbers of a word, and the text Mamba's width. 0: 1024 for hashed words; of a pretrained encoder its checkpoint is asked."""
    width: Count = 256
    """Of a graph's or crossing's sequences, and of the audio Mamba."""
    words_inner: Count = 512
    """Channels within the text Mamba."""
    voice_hidden: CountOrNone = 0
    words_hidden: CountOrNone = 0
    """Width of an LSTM (each way), xLSTM or Transformer. 0: as published, 128, and 512 or 256."""
    encoder_layers: CountOrNone = 0
    """0: as published, two; three of an audio xLSTM and of a text Transformer."""
    layers: Count = 5
    attention_heads: Count = 8
    graph_heads: Count = 8
    gate_width: Count = 256
    joined_width: Count = 512
    """Of BiMamba's layers."""
    joined_layers: Count = 4
    joined_numbers: Count = 16
    """Of state, for each of their channels."""
    steps: Count = 95
    hidden: CountOrNone = 0
    """Before the logits. 0: as published, 256, or `joined_width` of BiMamba."""
    voice_drop: Share | None = None
    """null: as published, 0.2, or 0.4 of a Transformer."""
    words_drop: Share = 0.0
    drop: Share = 0.15
    buckets: Annotated[int, Meta(ge=2)] = BUCKETS
    numbers: Count = NUMBERS
    gram_drop: Share = 0.1
    """Of hashed words: how often training leaves a run of letters out."""
    window_s: Seconds = 4.0
    hop_s: Seconds = 1.0
    """Live, where it does not stream exactly: an answer every `hop_s` over the last `window_s`."""


class VoiceState(NamedTuple):
    """Of `part` voice, streaming. Zeros: no frame yet."""

    encoder: Any
    mean: MeanState


def fusion_of(name: str, asked: Settings, voice_width: int, words_width: int, heads: int) -> nn.Module:
    """What joins the two encoders' steps, of that system."""
    released = asked.mode == "as_released"
    widths = (voice_width, words_width)
    if name == "bimamba":
        return Joining(
            *widths, asked.joined_width, heads, steps=asked.steps, layers=asked.joined_layers,
            numbers=asked.joined_numbers, hidden=asked.hidden or asked.joined_width, drop=asked.drop,
            as_released=released,
        )  # fmt: skip
    common: dict[str, Any] = {
        "steps": asked.steps, "layers": asked.layers, "attention_heads": asked.attention_heads,
        "hidden": asked.hidden or 256, "drop": asked.drop, "as_released": released,
    }  # fmt: skip
    if name == "biformer":
        return Crossing(*widths, asked.width, heads, **common)
    common |= {"graph_heads": asked.graph_heads, "gate_width": asked.gate_width}
    return GraphCrossing(*widths, asked.width, heads, gated=name == "bigatedgraphformer", **common)


class Bimodal(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """One answer to all that was given; of our own frames with `part` voice, one after each, where its encoder streams."""

    frame_samples = FRAME_SAMPLES

    def __init__(self, config: Settings, heads: Sequence[str], fusion: Fusion) -> None:
        super().__init__()
        wanted = config.wpf_of if config.part == "wpf" else (config.part,)
        self.models: tuple[str, ...] = tuple(dict.fromkeys(fusion if model == "both" else model for model in wanted))
        """voice, words, or a fusion's name."""
        _check(config, self.models)
        self.heads, self.steps, self.released = tuple(heads), config.steps, config.mode == "as_released"
        self.window_s, self.hop_s, self.pooled = config.window_s, config.hop_s, config.speech_pooled
        fusions = [model for model in self.models if model not in ("voice", "words")]
        voice, words = (bool(fusions) or one in self.models for one in ("voice", "words"))
        self.own, self.hashed = not is_hub(config.speech), not is_hub(config.words)
        self.fronts: tuple[str, ...] = (FRONTS if self.own else (config.speech,)) if voice else ()
        self.words = config.words if words else ""
        if voice:
            self._make_voice(config)
        if words:
            self._make_words(config)
        self.streams: Streams = "end" if not voice else "window"
        if config.part == "voice" and self.own and self.voice_encoder.streams == "live":
            self.streams = "exactly"
        count = len(self.heads)
        # Made only where they are used, so that what is counted and trained is what answers.
        self.voice_answer = nn.Linear(self.voice_encoder.width, count) if "voice" in self.models else None
        self.words_answer = nn.Linear(self.words_encoder.width, count) if "words" in self.models else None
        widths = (self.voice_encoder.width, self.words_encoder.width) if fusions else (0, 0)
        self.fusions = nn.ModuleDict({name: fusion_of(name, config, *widths, count) for name in fusions})
        self.weights = WeightedFusion(len(self.models), count) if config.part == "wpf" else None

    def _make_voice(self, config: Settings) -> None:
        if self.own:
            given = [front(name) for name in FRONTS]
            width = sum(FRAME_SAMPLES // one.samples * one.width for one in given)
            self.prosody_steps = FRAME_SAMPLES // given[1].samples
            self.standard = Standard(width)
        else:
            width = hub_width(config.speech, config.speech_width)
        self.voice_encoder = voice_encoder(
            config.voice_encoder, width, config.width, mode=config.mode, hidden=config.voice_hidden,
            layers=config.encoder_layers, drop=config.voice_drop,
        )  # fmt: skip

    def _make_words(self, config: Settings) -> None:
        width = config.words_width or 1024 if self.hashed else hub_width(config.words, config.words_width)
        self.hashed_words = (
            HashedWords(width, config.buckets, config.numbers, config.gram_drop) if self.hashed else None
        )
        self.words_encoder = words_encoder(
            config.words_encoder, width, config.words_inner, mode=config.mode, hidden=config.words_hidden,
            layers=config.encoder_layers, drop=config.words_drop,
        )  # fmt: skip

    def start(self, rows: int) -> Any:
        """Before the first frame; an empty tuple where nothing is carried."""
        if self.streams != "exactly":
            return ()
        assert self.voice_answer is not None
        start = mean_start(self.voice_answer.bias, rows, self.voice_encoder.width)
        return VoiceState(self.voice_encoder.start(rows), start)

    def fit_inputs(self, given: Mapping[str, Sequences]) -> None:
        """Takes from a large batch what the z-scores of our own frames are to be."""
        if self.fronts and self.own:
            self.standard.fit(self._own_frames(given))

    def forward(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None = None) -> tuple[Tensor, Any]:
        if self.streams == "exactly":
            return self._stream(given, state, at_BK)
        logits = self._logits(given)
        if self.weights is None:
            return logits[0][0][:, None], state
        present_BM = torch.stack([present_B for _, present_B in logits], 1)
        return self.weights(torch.stack([one_BH for one_BH, _ in logits], 1), present_BM)[:, None], state

    def _stream(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None) -> tuple[Tensor, Any]:
        """After each frame: the mean of all frames' features so far, to logits."""
        assert self.voice_answer is not None
        x_BTX, length_B = self._voice_given(given)
        y_BTD, encoder = self.voice_encoder(x_BTX, length_B, state.encoder)
        mean_BTD, _, sums = running_mean(y_BTD, length_B, state.mean)
        if at_BK is not None:
            mean_BTD = picked(mean_BTD, at_BK)
        return self.voice_answer(mean_BTD), VoiceState(encoder, sums)

    def _logits(self, given: Mapping[str, Sequences]) -> list[tuple[Tensor, Tensor]]:
        """Of each model: its logits [B, H], and which rows it can speak of [B]."""
        voice = self._voice(given) if self.fronts else None
        words = self._words(given.get(WORDS)) if self.words else None
        found = []
        for model in self.models:
            if model == "voice":
                found.append(self._alone(voice, self.voice_answer, given))
            elif model == "words":
                found.append(self._alone(words, self.words_answer, given))
            else:
                assert voice is not None
                both_B = voice.length_B > 0
                both_B = both_B | (words.length_B > 0) if words is not None else both_B
                found.append((self.fusions[model](voice, words), both_B))
        return found

    def _alone(
        self, one: Sequences | None, answer: nn.Linear | None, given: Mapping[str, Sequences]
    ) -> tuple[Tensor, Tensor]:
        """The mean of one encoder's steps, to logits. Rows without a step answer what the linear layer says to zeros."""
        assert answer is not None
        if one is None:  # no row has any of it
            length_B = given[self.fronts[0]].length_B
            return answer.bias.expand(length_B.shape[0], -1), torch.zeros_like(length_B, dtype=torch.bool)
        return answer(mean(one.x_BTD, one.length_B)), one.length_B > 0

    def _voice(self, given: Mapping[str, Sequences]) -> Sequences:
        return _encoded(self.voice_encoder, self._voice_given(given))

    def _voice_given(self, given: Mapping[str, Sequences]) -> Sequences:
        if not self.own:
            return pooled(given[self.fronts[0]], self.pooled)
        frames = self._own_frames(given)
        return Sequences(self.standard(frames.x_BTD), frames.length_B)

    def _own_frames(self, given: Mapping[str, Sequences]) -> Sequences:
        """Log-mel bands and the four hops of prosody beside them."""
        (logmel_BTX, length_B), prosody_BTX = given[FRONTS[0]], given[FRONTS[1]].x_BTD
        if not torch.jit.is_tracing():  # a recording may end within a frame; live, none does
            missing = logmel_BTX.shape[1] * self.prosody_steps - prosody_BTX.shape[1]
            prosody_BTX = functional.pad(prosody_BTX, (0, 0, 0, missing))
        prosody_BTX = prosody_BTX.reshape(*logmel_BTX.shape[:2], self.prosody_steps * prosody_BTX.shape[2])
        return Sequences(torch.cat((logmel_BTX, prosody_BTX), 2), length_B)

    def _words(self, given: Sequences | None) -> Sequences | None:
        """The text encoder's steps, `steps` of what is given at most."""
        if given is None:
            return None
        x_BSX, length_B = given.x_BTD[:, : self.steps], given.length_B.clamp_max(self.steps)
        if self.hashed_words is not None:
            x_BSX = self.hashed_words(x_BSX)
        if self.released:
            # The official code pads each text to `steps` tokens and counts them all.
            there_BS1 = real(length_B, x_BSX.shape[1])[..., None]
            x_BSX = functional.pad(x_BSX.masked_fill(~there_BS1, 0.0), (0, 0, 0, self.steps - x_BSX.shape[1]))
            length_B = torch.where(length_B > 0, self.steps, 0)
        return _encoded(self.words_encoder, Sequences(x_BSX, length_B))


def pooled(given: Sequences, many: int) -> Sequences:
    """Each row's frames by so many, from its beginning on, to their means; the last of fewer."""
    if many == 1:
        return given
    x_BTX, length_B = given
    there_BT1 = real(length_B, x_BTX.shape[1])[..., None].to(x_BTX.dtype)
    missing = -x_BTX.shape[1] % many
    parts = (functional.pad(part, (0, 0, 0, missing)) for part in (x_BTX * there_BT1, there_BT1))
    sum_BTX, count_BT1 = (part.reshape(part.shape[0], -1, many, part.shape[2]).sum(2) for part in parts)
    return Sequences(sum_BTX / count_BT1.clamp_min(1.0), torch.div(length_B + many - 1, many, rounding_mode="floor"))


def _encoded(encoder: Encoder, given: Sequences) -> Sequences:
    """Whole rows through it. Where a batch has not even padding, there is one step of it: some layers need one."""
    x_BSX, length_B = given
    if not torch.jit.is_tracing() and not x_BSX.shape[1]:
        x_BSX = functional.pad(x_BSX, (0, 0, 0, 1))
    y_BSD, _ = encoder(x_BSX, length_B, encoder.start(length_B.shape[0]))
    return Sequences(y_BSD, length_B)


def _check(config: Settings, models: Sequence[str]) -> None:
    for name, value, ours in (("speech", config.speech, "own"), ("words", config.words, "hashed")):
        if value != ours and not is_hub(value):
            raise GivenError(f"{name} {value!r}: give {ours}, or hub:NAME for a pretrained encoder")
    if not models:
        raise GivenError("wpf_of is empty: name the models to weigh, of voice, words, both or a system of the family")
    if config.width % config.attention_heads:
        raise GivenError(f"width {config.width} cannot be shared by {config.attention_heads} heads")
