"""The default voice system: a body that hears frames one after another, and a glance at the manner of all of them.

Letters: B rows, T frames of 80 ms, J pieces of 40 ms in one, S hops of 10 ms, M mel bands, P prosody numbers, D channels,
Q queries, K asked frames, F numbers of the manner, X = 1 + F, Y numbers that are answered from, H heads.

    log-mel and prosody -> less the utterance's own running mean -> linear -> Mamba -> GRU -> attentive statistics -> an answer
                        -> manner: some 650 running numbers, against the speaker's usual ones ------------------> an answer
    both, the second the more the better the speaker is known

The two err apart: the body knows how it sounds and goes on, the manner knows by how much it differs from the speaker's
usual. They are trained apart too, or one would learn to lean on the other: first the body, then a few small networks that
glance at the manner (`models/acquaint.py`), whose mean counts.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

from clser.models.features.constants import FRAME_SAMPLES, HOPS
from clser.models.features.logmel import BANDS
from clser.models.features.logmel import FEATURES as LOGMEL_WIDTH
from clser.models.features.manner import WIDTH, Manner, MannerState
from clser.models.features.prosody import FIELDS
from clser.models.layers.averages import SMALLEST_DEVIATION
from clser.models.layers.colour import SPEECH_LEVEL, running_colour
from clser.models.layers.mamba import MambaStack, MambaState
from clser.models.layers.pooling import AttentivePooling, PoolingState, sums_after, sums_at
from clser.models.systems import About, Streams
from clser.models.tensors import Sequences, at_end, real

ABOUT = About("The default voice system: Mamba, attentive statistics, and the speaker's manner", "docs/models.md")
PIECES = 2
LAGS = LOGMEL_WIDTH - HOPS * BANDS
FARTHEST = 4.0
"""Deviations beyond which a number of the manner tells no more."""
PRIOR_CLIPS = 3.0
"""How many utterances the prior counts for beside those of the speaker."""
SHARE_OF_STRANGERS, SHARE_OF_KNOWN = 0.35, 0.9
"""Of the manner in the answer: for somebody unknown, and for somebody known for ever."""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    width: Annotated[int, Meta(ge=32)] = 128
    layers: Annotated[int, Meta(ge=1)] = 1
    expand: Annotated[int, Meta(ge=1)] = 2
    queries: Annotated[int, Meta(ge=1)] = 3
    hidden: Annotated[int, Meta(ge=8)] = 96
    drop: Annotated[float, Meta(ge=0, lt=1)] = 0.15
    manner: Annotated[int, Meta(ge=8)] = 128
    """Hidden channels behind the manner."""
    members: Annotated[int, Meta(ge=1)] = 3
    """Networks that glance at it."""
    manner_drop: Annotated[float, Meta(ge=0, lt=1)] = 0.5


class State(NamedTuple):
    """Zeros: the start of an utterance."""

    level_B1: Tensor
    """How many pieces counted as speech."""
    mean_BM: Tensor
    """The sum of their bands, less the prior."""
    layers: tuple[MambaState, ...]
    gru_BD: Tensor
    pooled: PoolingState
    manner: MannerState


class Voice(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """An answer after every frame, the better for a speaker who was heard before."""

    streams: Streams = "exactly"
    fronts = ("logmel", "prosody")
    words = ""
    frame_samples = PIECES * FRAME_SAMPLES
    speaker_numbers = 1 + WIDTH

    def __init__(self, config: Config, heads: tuple[str, ...]) -> None:
        super().__init__()
        self.heads, width, drop = heads, config.width, config.drop
        self.listen_width, self.listen_depth = width, 2
        self.manner = Manner(PIECES * HOPS)
        self.register_buffer("mean_F", torch.zeros(WIDTH))
        self.register_buffer("deviation_F", torch.ones(WIDTH))
        self.enter = nn.Linear(PIECES * (HOPS * (BANDS + len(FIELDS)) + LAGS) + BANDS, width)
        self.enter_norm = nn.LayerNorm(width)
        self.layers = MambaStack(width, config.layers, config.expand, drop)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.leave_norm = nn.LayerNorm(width)
        self.pooling = AttentivePooling(width, config.queries)
        pooled = 2 * config.queries * width
        self.body = nn.Sequential(
            nn.LayerNorm(pooled), nn.Dropout(2 * drop), nn.Linear(pooled, config.hidden), nn.ReLU(), nn.Dropout(drop),
            nn.Linear(config.hidden, config.hidden), nn.ReLU(), nn.Dropout(drop), nn.Linear(config.hidden, len(heads)),
        )  # fmt: skip
        self.members = nn.ModuleList([
            nn.Sequential(
                nn.Dropout(2 * drop), nn.Linear(2 * WIDTH, config.manner), nn.ReLU(), nn.Dropout(config.manner_drop),
                nn.Linear(config.manner, len(heads)),
            )
            for _ in range(config.members)
        ])  # fmt: skip
        self.drop = nn.Dropout(drop)

    def start(self, rows: int) -> State:
        """Before the first frame."""
        zeros = self.mean_F.new_zeros
        gru_BD = zeros(rows, self.gru.hidden_size)
        layers, pooled = self.layers.start(rows), self.pooling.start(rows)
        return State(zeros(rows, 1), zeros(rows, BANDS), layers, gru_BD, pooled, self.manner.start(rows))

    def fit_inputs(self, given: Mapping[str, Sequences]) -> None:
        """Takes what is usual, of hops and of whole utterances, from a large batch of speech."""
        bands_BSM, prosody_BSP, real_BS = self._hops(given)
        columns_BSC = self.manner.columns(bands_BSM, prosody_BSP)
        self.manner.fit(columns_BSC[real_BS & (bands_BSM.mean(2) > SPEECH_LEVEL)])
        at_B1 = (given["logmel"].length_B // PIECES - 1).clamp_min(0)[:, None]
        f_BF = self._plain(given, at_B1)[:, 0]
        self.mean_F.copy_(f_BF.mean(0))
        self.deviation_F.copy_(f_BF.std(0).clamp_min(SMALLEST_DEVIATION))

    def tell(self, given: Mapping[str, Sequences], at_BK: Tensor) -> Tensor:
        """[B, K, X]: what whole utterances tell of their speaker, without the rest of the work."""
        f_BKF = self._far(self._plain(given, at_BK))
        return torch.cat((torch.ones_like(f_BKF[..., :1]), f_BKF), 2)

    def hear(self, given: Mapping[str, Sequences], state: State, at_BK: Tensor | None = None) -> tuple[Tensor, State]:
        """e_BKY: 1 and the manner, which tell of the speaker; behind them what the body makes of it: its logits."""
        length_B = given["logmel"].length_B // PIECES
        if self.training:  # nothing of it is trained, and nobody asks for it
            manner, f_BKF = state.manner, self.mean_F.new_zeros(1, 1, WIDTH)
        else:
            f_BKF, manner = self.manner(*self._hops(given), state.manner, at_BK)
            f_BKF = self._far(f_BKF)
        (*_, y_BTD), level_B1, mean_BM, layers, gru_BD = self._body(given, length_B, state)
        sums = self.pooling.sums(y_BTD, state.pooled)
        logits_BKH = self.body(self.pooling.read(sums_at(sums, at_BK)))
        left = State(level_B1, mean_BM, layers, gru_BD, sums_after(sums, length_B, state.pooled), manner)
        told_BKX = torch.cat((torch.ones_like(f_BKF[..., :1]), f_BKF), 2).expand(*logits_BKH.shape[:2], -1)
        return torch.cat((told_BKX, logits_BKH), 2), left

    def answer(self, e_BKY: Tensor, speaker_BX: Tensor) -> Tensor:
        """[B, K, H], where that is known of the speaker. While training the body answers alone."""
        body_BKH = e_BKY[..., 1 + WIDTH :]
        if self.training:
            return body_BKH
        told_BKX = e_BKY[..., : 1 + WIDTH]
        manner_BKH = torch.stack([self.glance(member, told_BKX, speaker_BX) for member in self.members]).mean(0)
        heard_B11 = speaker_BX[:, None, :1]
        share = SHARE_OF_STRANGERS + (SHARE_OF_KNOWN - SHARE_OF_STRANGERS) * heard_B11 / (heard_B11 + PRIOR_CLIPS)
        return (1.0 - share) * body_BKH + share * manner_BKH

    def glance(self, member: nn.Module, told_BKX: Tensor, speaker_BX: Tensor) -> Tensor:
        """[B, K, H]: what one of the members makes of the manner, against the speaker's usual one."""
        f_BKF = told_BKX[..., 1:]
        usual_B1F = speaker_BX[:, None, 1:] / (speaker_BX[:, None, :1] + PRIOR_CLIPS)
        logits_BKH: Tensor = member(torch.cat((f_BKF - usual_B1F, usual_B1F.expand_as(f_BKF)), 2))
        return logits_BKH

    def forward(
        self, given: Mapping[str, Sequences], state: State, at_BK: Tensor | None = None
    ) -> tuple[Tensor, State]:
        e_BKY, left = self.hear(given, state, at_BK)
        return self.answer(e_BKY, e_BKY.new_zeros(e_BKY.shape[0], self.speaker_numbers)), left

    def listen(self, given: Mapping[str, Sequences]) -> tuple[Tensor, ...]:
        """What enters the body, what its Mamba makes of it, and what it answers from."""
        length_B = given["logmel"].length_B // PIECES
        layers, *_ = self._body(given, length_B, self.start(len(length_B)))
        return layers

    def _hops(self, given: Mapping[str, Sequences]) -> tuple[Tensor, Tensor, Tensor]:
        """Bands, prosody, and which hops are real."""
        logmel_BUX, length_B = given["logmel"]
        rows = logmel_BUX.shape[0]
        bands_BSM = logmel_BUX[..., : HOPS * BANDS].reshape(rows, -1, BANDS)
        return bands_BSM, given["prosody"].x_BTD, real(length_B * HOPS, bands_BSM.shape[1])

    def _plain(self, given: Mapping[str, Sequences], at_BK: Tensor) -> Tensor:
        """[B, K, F] of utterances from their beginnings on, as it comes."""
        f_BKF, _ = self.manner(*self._hops(given), self.manner.start(len(at_BK)), at_BK)
        return f_BKF

    def _far(self, f_BKF: Tensor) -> Tensor:
        return ((f_BKF - self.mean_F) / self.deviation_F).clamp(-FARTHEST, FARTHEST)

    def _body(
        self, given: Mapping[str, Sequences], length_B: Tensor, state: State
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor, tuple[MambaState, ...], Tensor]:
        """Its layers, the last of which is answered from; what is left of the state but for the pooling and the manner."""
        x_BTX, level_B1, mean_BM = self._entering(given, state)
        first_BTD = self.drop(torch.relu(self.enter_norm(self.enter(x_BTX))))
        x_BTD, layers = self.layers(first_BTD, length_B, state.layers)
        gru_BTD, _ = self.gru(x_BTD, state.gru_BD[None])
        gru_BD = at_end(state.gru_BD, gru_BTD, length_B)
        return (first_BTD, x_BTD, self.leave_norm(x_BTD + gru_BTD)), level_B1, mean_BM, layers, gru_BD

    def _entering(self, given: Mapping[str, Sequences], state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Each band less its mean over this utterance so far, that mean's colour, lags and prosody; and the new sums."""
        logmel_BUX, pieces_B = given["logmel"]
        rows, pieces = logmel_BUX.shape[:2]
        usual_M, scale_M = self.manner.mean_C[:BANDS], 1.0 / self.manner.deviation_C[:BANDS]
        first = self.manner.prosody
        usual_P, scale_P = self.manner.mean_C[first], 1.0 / self.manner.deviation_C[first]
        bands_BUJM = logmel_BUX[..., : HOPS * BANDS].reshape(rows, pieces, HOPS, BANDS) - usual_M
        piece_BUM = bands_BUJM.mean(2)
        level_BU1 = piece_BUM.mean(2, keepdim=True) + usual_M.mean()
        speech_BU1 = torch.sigmoid(level_BU1 - SPEECH_LEVEL) * real(pieces_B, pieces)[..., None]
        running = running_colour(piece_BUM, speech_BU1, state.level_B1, state.mean_BM)
        less_BUX = ((bands_BUJM - running.mean_BTM[:, :, None]) * scale_M).flatten(2)
        lags_BUL = logmel_BUX[..., HOPS * BANDS :] * 2.0
        prosody_BUX = ((given["prosody"].x_BTD - usual_P) * scale_P).reshape(rows, pieces, -1)
        each_BTX = torch.cat((less_BUX, lags_BUL, prosody_BUX), 2).reshape(rows, pieces // PIECES, -1)
        colour_BTM = (running.colour_BTM * scale_M)[:, PIECES - 1 :: PIECES]
        # padding counts as no speech, so the sums over all pieces are those over each row's own
        level_B1, mean_BM = state.level_B1 + speech_BU1.sum(1), state.mean_BM + (speech_BU1 * piece_BUM).sum(1)
        return torch.cat((each_BTX, colour_BTM), 2), level_B1, mean_BM


def build(config: Config, heads: tuple[str, ...]) -> Voice:
    """The system with these settings."""
    return Voice(config, heads)
