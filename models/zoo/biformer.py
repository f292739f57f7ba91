"""BiFormer (BDCC 9(11):285): an audio Mamba and a text Mamba whose steps ask one another, or either alone, or all weighed.

Letters: B rows, S steps, T frames of 40 ms, D channels, X numbers given, H heads, M models.

    voice -> audio Mamba -> 256 \\
                                  95 steps each -> 5 layers x 2 directions -> means -> MLP -> logits
    words -> text Mamba -> 1024 /

`mode` paper or as_released: see docs/systems.md for what the official code does otherwise.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.nn import functional

from clser.models.encoders.family import AudioMamba, Mode, TextMamba
from clser.models.encoders.hub_frames import hub_width, is_hub
from clser.models.encoders.speech import FRONTS
from clser.models.encoders.text import BUCKETS, NUMBERS, HashedWords
from clser.models.errors import GivenError
from clser.models.features.constants import FRAME_SAMPLES
from clser.models.features.fronts import front
from clser.models.layers.averages import MeanState, Standard, mean, mean_start, running_mean
from clser.models.layers.crossing import Crossing
from clser.models.layers.gating import WeightedFusion
from clser.models.systems import WORDS, About, Streams
from clser.models.tensors import Sequences, picked, real

ABOUT = About("BiFormer: audio and text Mamba with attention across", "BDCC 9(11):285, 2025; code LEYA-HSE/BiBiER")

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Seconds = Annotated[float, Meta(gt=0)]
Model = Literal["voice", "words", "both"]


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Every choice."""

    mode: Mode = "paper"
    part: Literal["both", "voice", "words", "wpf"] = "both"
    """both: the fusion. voice, words: one encoder and the mean of its steps. wpf: the models of `wpf_of`, weighed by class."""
    wpf_of: tuple[Model, ...] = ("voice", "words", "both")
    speech: str = "own"
    """own: log-mel and prosody. hub:NAME: frames of a pretrained encoder."""
    speech_width: Annotated[int, Meta(ge=0)] = 0
    """How wide a pretrained encoder's frames are; 0 asks its checkpoint."""
    words: str = "hashed"
    """hashed: words by their letters. hub:NAME: what a pretrained encoder makes of its tokens."""
    words_width: Annotated[int, Meta(ge=0)] = 0
    """The text Mamba's width. 0: 1024 for hashed words, as published; of a pretrained encoder its checkpoint is asked."""
    width: Count = 256
    words_inner: Count = 512
    encoder_layers: Count = 2
    layers: Count = 5
    attention_heads: Count = 8
    steps: Count = 95
    hidden: Count = 256
    voice_drop: Share = 0.2
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


class BiFormer(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """One answer to all that was given; of our own frames with `part` voice, one after each."""

    frame_samples = FRAME_SAMPLES

    def __init__(self, config: Config, heads: Sequence[str]) -> None:
        super().__init__()
        _check(config)
        self.heads, self.steps, self.released = tuple(heads), config.steps, config.mode == "as_released"
        self.window_s, self.hop_s = config.window_s, config.hop_s
        wanted = config.wpf_of if config.part == "wpf" else (config.part,)
        self.models: tuple[str, ...] = tuple(dict.fromkeys(wanted))
        voice, words = (any(part in self.models for part in (one, "both")) for one in ("voice", "words"))
        self.own, self.hashed = not is_hub(config.speech), not is_hub(config.words)
        self.fronts: tuple[str, ...] = (FRONTS if self.own else (config.speech,)) if voice else ()
        self.words = config.words if words else ""
        self.streams: Streams = "end" if not voice else "window"
        if config.part == "voice" and self.own:
            self.streams = "exactly"
        if voice:
            self._make_voice(config)
        if words:
            self._make_words(config)
        count = len(self.heads)
        # Made only where they are used, so that what is counted and trained is what answers.
        self.voice_answer = nn.Linear(config.width, count) if "voice" in self.models else None
        self.words_answer = nn.Linear(self.text_mamba.width, count) if "words" in self.models else None
        self.crossing: Crossing | None = None
        if "both" in self.models:
            self.crossing = Crossing(
                config.width, self.text_mamba.width, count, steps=config.steps, layers=config.layers, hidden=config.hidden,
                attention_heads=config.attention_heads, drop=config.drop, as_released=self.released,
            )  # fmt: skip
        self.weights = WeightedFusion(len(self.models), count) if config.part == "wpf" else None

    def _make_voice(self, config: Config) -> None:
        if self.own:
            given = [front(name) for name in FRONTS]
            width = sum(FRAME_SAMPLES // one.samples * one.width for one in given)
            self.prosody_steps = FRAME_SAMPLES // given[1].samples
            self.standard = Standard(width)
        else:
            width = hub_width(config.speech, config.speech_width)
        self.audio_mamba = AudioMamba(
            width, config.width, config.encoder_layers, mode=config.mode, drop=config.voice_drop
        )

    def _make_words(self, config: Config) -> None:
        width = config.words_width or 1024 if self.hashed else hub_width(config.words, config.words_width)
        self.hashed_words = (
            HashedWords(width, config.buckets, config.numbers, config.gram_drop) if self.hashed else None
        )
        self.text_mamba = TextMamba(
            width, config.words_inner, config.encoder_layers, mode=config.mode, drop=config.words_drop
        )

    def start(self, rows: int) -> Any:
        """Before the first frame; an empty tuple where nothing is carried."""
        if self.streams != "exactly":
            return ()
        bias_D = self.audio_mamba.enter.bias
        return VoiceState(self.audio_mamba.start(rows), mean_start(bias_D, rows, self.audio_mamba.width))

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
        y_BTD, encoder = self.audio_mamba(x_BTX, length_B, state.encoder)
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
                assert self.crossing is not None and voice is not None
                both_B = voice.length_B > 0
                both_B = both_B | (words.length_B > 0) if words is not None else both_B
                found.append((self.crossing(voice, words), both_B))
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
        x_BTX, length_B = self._voice_given(given)
        y_BTD, _ = self.audio_mamba(x_BTX, length_B, self.audio_mamba.start(length_B.shape[0]))
        return Sequences(y_BTD, length_B)

    def _voice_given(self, given: Mapping[str, Sequences]) -> Sequences:
        if not self.own:
            return given[self.fronts[0]]
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
        """The text Mamba's steps, `steps` of them at most."""
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
        y_BSX, _ = self.text_mamba(x_BSX, length_B, self.text_mamba.start(length_B.shape[0]))
        return Sequences(y_BSX, length_B)


def _check(config: Config) -> None:
    for name, value, ours in (("speech", config.speech, "own"), ("words", config.words, "hashed")):
        if value != ours and not is_hub(value):
            raise GivenError(f"{name} {value!r}: give {ours}, or hub:NAME for a pretrained encoder")
    if config.part == "wpf" and not config.wpf_of:
        raise GivenError("wpf_of is empty: name the models to weigh, of voice, words, both")
    if config.width % config.attention_heads:
        raise GivenError(f"width {config.width} cannot be shared by {config.attention_heads} heads")


def build(config: Config, heads: Sequence[str]) -> BiFormer:
    """The system, untrained."""
    return BiFormer(config, heads)
