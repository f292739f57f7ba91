"""MPAF-Net (Li et al.): words, voice and face, each two of them weighed against one another, and its four rivals.

Letters: B rows, S steps of 20 ms, L words or tokens, F faces, T frames of 40 ms, K frames asked for, N rows of many frames,
M sources, D numbers of a source, H heads.

    words: the first step of a pretrained encoder, [CLS] -> 768 \\
    voice: 40 cepstra every 20 ms -> LSTM                -> 128  -> the three and what comes of each two -> MLP -> logits
    face: 64 x 64 grey, 150 of them -> LSTM              -> 256 /

What the paper leaves open is a setting here; docs/systems.md says which. Any of the three may be missing.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

from clser.models.data.faces import SIDE
from clser.models.encoders.hub_frames import HUB, HUB_SAMPLES, hub_width, is_hub
from clser.models.encoders.text import BUCKETS, NUMBERS, TUNED, HashedWords
from clser.models.errors import GivenError
from clser.models.features.constants import FRAME_SAMPLES
from clser.models.features.fronts import front
from clser.models.layers.averages import MeanState, Standard, mean, mean_start, running_mean
from clser.models.layers.crossing import stretched
from clser.models.layers.pairs import Pairs, Products, SideBySide
from clser.models.layers.recurrent import Lstm, Pooling, Whole, some_steps
from clser.models.systems import FACES, WORDS, About, Streams
from clser.models.tensors import Sequences, picked

ABOUT = About("MPAF-Net: words, voice and face, pair by pair", "Li et al.; no code published")

MFCC = "mfcc40_40_20"
RATIO = FRAME_SAMPLES // HUB_SAMPLES  # a pretrained encoder's steps are as long as those of the cepstra
HASHED_WIDTH = 256

Fusing = Literal["mpaf", "baseline", "ef_lstm", "lf_lstm", "tfn"]
RIVALS: tuple[Fusing, ...] = ("baseline", "ef_lstm", "lf_lstm", "tfn")
Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Every choice."""

    fusion: Fusing = "mpaf"
    """baseline: the three side by side. lf_lstm: the same, the words through an LSTM too. ef_lstm: one LSTM over steps of all
    three side by side. tfn: products of a number of each (Zadeh et al. 2017)."""
    speech: str = "mfcc"
    """mfcc: as published, and it streams. hub:NAME: frames of a pretrained encoder into the LSTM. none: left out."""
    speech_width: Natural = 0
    """How wide a pretrained encoder's frames are; 0 asks its checkpoint."""
    words: str = "hashed"
    """hashed: the mean of words by their letters. hub:NAME: the first step of a pretrained encoder. none: left out."""
    words_width: Natural = 0
    """0: 256 of hashed words; of a pretrained encoder its checkpoint is asked."""
    words_tuned: Natural = 2
    """So many last layers of a pretrained text encoder are trained along; 0: none, and its frames are computed once."""
    faces: Natural = 150
    """So many faces of a clip at most. 0: left out."""
    speech_hidden: Count = 128
    face_hidden: Count = 256
    words_hidden: Count = 128
    """Of the rival's LSTM over the words."""
    pooling: Pooling = "last"
    """What an LSTM says of its sequence: its last step, or the mean of all."""
    width: Count = 256
    """Of what comes of a pair, and of the rival's one LSTM."""
    balance_hidden: Count = 256
    hidden: Count = 256
    narrow: Count = 32
    """Of a source before the products of tfn."""
    early_steps: Count = 50
    """To so many steps each source is stretched for ef_lstm."""
    drop: Share = 0.2
    source_drop: Share = 0.1
    """How often training leaves a source out, so that a missing one is nothing new. 0: as published."""
    buckets: Annotated[int, Meta(ge=2)] = BUCKETS
    numbers: Count = NUMBERS
    gram_drop: Share = 0.1
    """Of hashed words: how often training leaves a run of letters out."""
    window_s: Seconds = 8.0
    hop_s: Seconds = 1.0
    """Live, where it does not stream exactly: an answer every `hop_s` over the last `window_s`."""


class VoiceState(NamedTuple):
    """Zeros: no frame yet."""

    lstm: Any
    mean: MeanState


class MpafNet(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """An answer every 40 ms where the voice is its cepstra; else one to all that was given."""

    frame_samples = FRAME_SAMPLES

    def __init__(self, config: Config, heads: Sequence[str]) -> None:
        super().__init__()
        _check(config)
        self.heads, self.pooling, self.source_drop = tuple(heads), config.pooling, config.source_drop
        self.window_s, self.hop_s, self.faces = config.window_s, config.hop_s, config.faces
        self.early = config.early_steps if config.fusion == "ef_lstm" else 0
        self.fronts: tuple[str, ...] = ()
        self.words = ""
        self.streams: Streams = "end"
        self.pretrained: tuple[str, ...] = ()
        """Parts that learn at the rate of what was trained before."""
        self.words_encoder: nn.Module | None = None
        # In the order in which the paper pairs them: text, voice, face.
        self.sources: dict[str, int] = {}
        if config.words != "none":
            self._make_words(config)
        if config.speech != "none":
            self._make_voice(config)
        if config.faces:
            self.sources[FACES] = SIDE * SIDE if self.early else config.face_hidden
            self.face_lstm = None if self.early else Whole(SIDE * SIDE, config.face_hidden, config.pooling)
        self._make_fusion(config)
        self.answer = nn.Sequential(
            nn.Linear(self.fusion.width if self.fusion is not None else config.width, config.hidden), nn.ReLU(),
            nn.Dropout(config.drop), nn.Linear(config.hidden, len(self.heads)),
        )  # fmt: skip

    def _make_words(self, config: Config) -> None:
        self.hashed = not is_hub(config.words)
        self.hashed_words: HashedWords | None = None
        if self.hashed:
            width = config.words_width or HASHED_WIDTH
            self.hashed_words = HashedWords(width, config.buckets, config.numbers, config.gram_drop)
            self.words = "hashed"
        elif config.words_tuned:
            from clser.models.encoders.tuned_text import TunedText  # noqa: PLC0415 - loads transformers

            name = config.words.removeprefix(HUB)
            self.words_encoder = TunedText(name, config.words_tuned)
            width, self.words, self.pretrained = self.words_encoder.width, TUNED + name, ("words_encoder",)
        else:
            width, self.words = hub_width(config.words, config.words_width), config.words
        late = config.fusion == "lf_lstm"
        self.words_lstm = Whole(width, config.words_hidden, config.pooling) if late else None
        self.sources[WORDS] = config.words_hidden if late else width

    def _make_voice(self, config: Config) -> None:
        own = config.speech == "mfcc"
        name = MFCC if own else config.speech
        width = front(name).width if own else hub_width(name, config.speech_width)
        self.fronts = (name,)
        self.streams = "exactly" if own and not self.early else "window"
        self.standard = Standard(width)
        self.voice_lstm: Any = None
        if self.streams == "exactly":
            self.voice_lstm = Lstm(width, config.speech_hidden)
        elif not self.early:
            self.voice_lstm = Whole(width, config.speech_hidden, config.pooling)
        self.sources["voice"] = width if self.early else config.speech_hidden

    def _make_fusion(self, config: Config) -> None:
        widths = tuple(self.sources.values())
        self.early_lstm = Whole(sum(widths), config.width, config.pooling) if self.early else None
        self.fusion: Any = None
        if config.fusion == "mpaf":
            self.fusion = Pairs(widths, config.width, config.balance_hidden, config.drop)
        elif config.fusion == "tfn":
            self.fusion = Products(widths, config.narrow, config.drop)
        elif not self.early:
            self.fusion = SideBySide(widths)

    def start(self, rows: int) -> Any:
        """Before the first frame; an empty tuple where nothing is carried."""
        if self.streams != "exactly":
            return ()
        return VoiceState(self.voice_lstm.start(rows), mean_start(self.standard.mean_D, rows, self.voice_lstm.width))

    def fit_inputs(self, given: Mapping[str, Sequences]) -> None:
        """Takes from a large batch what the z-scores of the voice are to be."""
        if self.fronts:
            self.standard.fit(given[self.fronts[0]])

    def forward(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None = None) -> tuple[Tensor, Any]:
        if self.early:
            return self.answer(self._early(given))[:, None], state
        x_MBKD, present_BKM, state = self._vectors(given, state, at_BK)
        frames = present_BKM.shape[1]
        fused_NW = self.fusion([x_BKD.flatten(0, 1) for x_BKD in x_MBKD], present_BKM.flatten(0, 1))
        return self.answer(fused_NW).reshape(-1, frames, len(self.heads)), state

    def shares(self, given: Mapping[str, Sequences]) -> Tensor:
        """[B, P]: of each pair in `fusion.of`, the share of its first source (alpha), after all that was given."""
        if not isinstance(self.fusion, Pairs):
            raise GivenError("only fusion mpaf has pairs that share: build the system with it")
        rows = next(iter(given.values())).length_B.shape[0]
        at_B1 = None
        if self.fronts:
            at_B1 = (torch.div(given[self.fronts[0]].length_B, RATIO, rounding_mode="floor") - 1).clamp_min(0)[:, None]
        x_MBKD, present_BKM, _ = self._vectors(given, self.start(rows), at_B1)
        return self.fusion.shares([x_BKD[:, 0] for x_BKD in x_MBKD], present_BKM[:, 0])

    def _vectors(
        self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None
    ) -> tuple[list[Tensor], Tensor, Any]:
        """Each source's [B, K, D], which of them are there [B, K, M], and the state."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        if self.fronts:
            x_BKD, heard_BK, state = self._voice(given[self.fronts[0]], state, at_BK)
            found["voice"], (rows, frames) = (x_BKD, heard_BK), heard_BK.shape
        else:
            rows, frames = given[WORDS].length_B.shape[0], 1
        for name, of in ((WORDS, self._words), (FACES, self._faces)):
            if name in self.sources:
                x_BD, present_B = of(given.get(name), rows)
                found[name] = x_BD[:, None].expand(-1, frames, -1), present_B[:, None].expand(-1, frames)
        present_BKM = self._left(torch.stack([found[name][1] for name in self.sources], 2))
        return [found[name][0] for name in self.sources], present_BKM, state

    def _voice(self, given: Sequences, state: Any, at_BK: Tensor | None) -> tuple[Tensor, Tensor, Any]:
        """f_a [B, K, D] after each frame, or all of them; whether any was heard [B, K]; and the state."""
        x_BSD, length_B = self.standard(some_steps(given.x_BTD, RATIO)), given.length_B
        if self.streams != "exactly":
            return self.voice_lstm(x_BSD, length_B)[:, None], (length_B > 0)[:, None], state
        y_BSD, lstm = self.voice_lstm(x_BSD, length_B, state.lstm, carry=not self.training)
        x_BTD, count_BT1, sums = running_mean(y_BSD, length_B, state.mean, RATIO)
        if self.pooling == "last":
            x_BTD = y_BSD[:, RATIO - 1 :: RATIO]
        heard_BT = count_BT1[..., 0] > 0
        if at_BK is not None:
            x_BTD, heard_BT = picked(x_BTD, at_BK), picked(heard_BT, at_BK)
        return x_BTD, heard_BT, VoiceState(lstm, sums)

    def _words(self, given: Sequences | None, rows: int) -> tuple[Tensor, Tensor]:
        """f_t [B, D], and whether there is any text [B]."""
        if given is None:
            return self._none(WORDS, rows)
        x_BLD, length_B = self._steps(given)
        if self.words_lstm is not None:
            x_BD = self.words_lstm(x_BLD, length_B)
        else:
            x_BD = mean(x_BLD, length_B) if self.hashed else some_steps(x_BLD)[:, 0]  # [CLS] is the first
        return x_BD, length_B > 0

    def _steps(self, given: Sequences) -> Sequences:
        """The words' or tokens' vectors."""
        if self.hashed_words is not None:
            return Sequences(self.hashed_words(given.x_BTD), given.length_B)
        return given if self.words_encoder is None else self.words_encoder(given.x_BTD, given.length_B)

    def _faces(self, given: Sequences | None, rows: int) -> tuple[Tensor, Tensor]:
        """f_v [B, D], and whether any face was seen [B]."""
        if given is None:
            return self._none(FACES, rows)
        assert self.face_lstm is not None
        return self.face_lstm(*_pixels(given)), given.length_B > 0

    def _none(self, name: str, rows: int) -> tuple[Tensor, Tensor]:
        """Of a source that no row has any of."""
        bias_H = self.answer[-1].bias
        return bias_H.new_zeros(rows, self.sources[name]), torch.zeros(rows, dtype=torch.bool, device=bias_H.device)

    def _early(self, given: Mapping[str, Sequences]) -> Tensor:
        """[B, D]: every source stretched to the same steps, side by side through one LSTM."""
        assert self.early_lstm is not None
        of = {WORDS: self._steps, "voice": self._scored, FACES: _pixels}
        known_B = next(iter(given.values())).length_B
        parts, present = [], []
        for name, width in self.sources.items():
            one = given.get(self.fronts[0] if name == "voice" else name)
            if one is None:
                parts.append(self.answer[-1].bias.new_zeros(known_B.shape[0], self.early, width))
                present.append(torch.zeros_like(known_B, dtype=torch.bool))
            else:
                parts.append(stretched(of[name](one), self.early))
                present.append(one.length_B > 0)
        present_BM = self._left(torch.stack(present, 1)[:, None])[:, 0]
        parts = [part.masked_fill(~present_BM[:, m, None, None], 0.0) for m, part in enumerate(parts)]
        early_BD: Tensor = self.early_lstm(torch.cat(parts, 2), torch.full_like(known_B, self.early))
        return early_BD

    def _scored(self, given: Sequences) -> Sequences:
        """The voice's steps as z-scores."""
        return Sequences(self.standard(given.x_BTD), given.length_B)

    def _left(self, present_BKM: Tensor) -> Tensor:
        """While training: some sources left out, never all of a row."""
        if not (self.training and self.source_drop):
            return present_BKM
        rows, _, sources = present_BKM.shape
        kept_B1M = torch.rand(rows, 1, sources, device=present_BKM.device) >= self.source_drop
        left_BKM = present_BKM & kept_B1M
        return torch.where(left_BKM.any(2, keepdim=True), left_BKM, present_BKM)


def _pixels(given: Sequences) -> Sequences:
    """[B, F, 64 * 64]: grey as -0.5 to 0.5."""
    return Sequences(given.x_BTD.flatten(2).float() / 255.0 - 0.5, given.length_B)


def _check(config: Config) -> None:
    for name, value, ours in (("speech", config.speech, "mfcc"), (WORDS, config.words, "hashed")):
        if value not in (ours, "none") and not is_hub(value):
            raise GivenError(f"{name} {value!r}: give {ours}, none, or hub:NAME for a pretrained encoder")
    if config.speech == "none" and config.faces:
        raise GivenError("speech none: a clip's faces are seen beside its voice, so leave them out too (faces: 0)")
    if config.speech == config.words == "none":
        raise GivenError("speech and words are both none: leave one in")


def build(config: Config, heads: Sequence[str]) -> MpafNet:
    """The system, untrained."""
    return MpafNet(config, heads)
